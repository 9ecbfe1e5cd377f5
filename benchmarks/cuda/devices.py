"""GPUs by their data sheets at their highest clocks, as inputs of the planner in csrc/cuda."""

from __future__ import annotations

from dataclasses import dataclass

from .schedule import Machine, kernel_emulator

# Equal to the assumptions of csrc/cuda/limits.h and plan.h, which a test checks.
COPY = 0.88  # fraction of the data sheet's bandwidth that a copy reaches
LAUNCH_CYCLES = 5000  # of each kernel after the first


@dataclass(frozen=True)
class Device:
    name: str
    multiprocessors: int
    shared_kilobytes: int  # per block
    terabytes: float  # per second
    gigahertz: float

    def machine(self) -> Machine:
        block = self.shared_kilobytes << 10
        return Machine(
            shared_bytes=block - kernel_emulator.HEADER,
            multiprocessors=self.multiprocessors,
            shared_of_multiprocessor=block + self.shared_reserved,
            shared_reserved=self.shared_reserved,
            bytes_per_clock=COPY * self.terabytes * 1e3 / self.gigahertz,
            launch_cycles=LAUNCH_CYCLES,
        )

    @property
    def shared_reserved(self) -> int:
        """Bytes of shared memory reserved per block; from sm_80 on a multiprocessor has this much more than a block."""
        return kernel_emulator.RESERVED if self.shared_kilobytes > 64 else 0

    def milliseconds(self, cycles: float) -> float:
        return cycles / self.gigahertz / 1e6


T4 = Device("T4", 40, 64, 0.32, 1.59)
A100 = Device("A100 80GB", 108, 163, 2.04, 1.41)
H100 = Device("H100 SXM", 132, 227, 3.35, 1.98)
H200 = Device("H200", 132, 227, 4.80, 1.98)
RTX_5090 = Device("RTX 5090", 170, 99, 1.79, 2.41)

DEVICES = (A100, H100, H200)
