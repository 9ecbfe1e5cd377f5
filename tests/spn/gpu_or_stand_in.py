"""The GPU of the CUDA tests, or the CPU as a stand-in, which reveals mistakes in the tests themselves without a GPU.

A test that passes with the stand-in shows nothing about the CUDA kernels. Test ids and pytest's header therefore name
the stand-in.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from operator_cases import Case
from torch import Tensor

from spn import _ops

Results = Sequence[Tensor]


class Gpu:
    name = "cuda"
    device = "cuda"
    stands_in = False

    @property
    def description(self) -> str:
        return f"run on {torch.cuda.get_device_name()}"

    def sized(self, case: Case) -> Case:
        return case

    def times(self, count: int) -> int:
        return count

    def other_device(self) -> str:
        if torch.cuda.device_count() < 2:
            pytest.skip("needs two GPUs")
        return "cuda:1"

    def current_device(self) -> int:
        return torch.cuda.current_device()

    def needs_memory(self, gigabytes: float) -> None:
        torch.cuda.empty_cache()
        if torch.cuda.mem_get_info()[0] < gigabytes * 1e9:
            pytest.skip(f"needs {gigabytes} GB of free GPU memory")

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def stream(self) -> Any:
        return torch.cuda.Stream()

    def current_stream(self) -> Any:
        return torch.cuda.current_stream()

    def on(self, stream: Any) -> AbstractContextManager:
        return torch.cuda.stream(stream)

    def be_busy(self) -> None:
        """Keep the current stream busy for a few hundredths of a second."""
        torch.cuda._sleep(50_000_000)

    @contextmanager
    def synchronization_is_an_error(self) -> Iterator[None]:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def capture(self, call: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        """Capture a call; return its results, and a function that replays the call into them."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call()
        return captured, graph.replay

    def memory(self, call: Callable[[], Any]) -> tuple[Any, int, int]:
        """Return the call's result, the bytes that remain allocated, and the peak during the call.

        Bytes are counted as requested; the allocator may hand out up to a megabyte more.
        """
        gc.collect()  # leftovers of earlier tests must not be freed during the call
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_stats()["requested_bytes.all.current"]
        result = call()
        after = torch.cuda.memory_stats()
        left, most = (after[f"requested_bytes.all.{when}"] - before for when in ("current", "peak"))
        return result, left, most


class StandInStream:
    def wait_stream(self, other: StandInStream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class StandIn:
    """The CPU, which runs calls synchronously. Problems shrink, but still cross the edges of tiles."""

    name = "CPU-stands-in"
    device = "cpu"
    stands_in = True

    @property
    def description(self) -> str:
        reason = "torch sees no GPU" if not torch.cuda.is_available() else _ops.CUDA.reason
        return f"DO NOT RUN ON A GPU, the CPU stands in: {reason}"

    def sized(self, case: Case) -> Case:
        batch, channels, *sides = case.shape
        fewer = max(1, channels // 4)
        sides = [side if side <= 40 else 36 + side % 4 for side in sides]
        return case.with_(
            shape=(min(batch, 2), max(1, channels // fewer), *sides),
            groups=max(1, case.groups // fewer),
            source_groups=max(1, case.source_groups // fewer) if case.source_groups else 0,
        )

    def times(self, count: int) -> int:
        return min(count, 5)

    def other_device(self) -> str:
        return "cpu"

    def current_device(self) -> int:
        return 0

    def needs_memory(self, gigabytes: float) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def stream(self) -> StandInStream:
        return StandInStream()

    def current_stream(self) -> StandInStream:
        return StandInStream()

    def on(self, stream: StandInStream) -> AbstractContextManager:
        return nullcontext()

    def be_busy(self) -> None:
        pass

    def synchronization_is_an_error(self) -> AbstractContextManager:
        return nullcontext()

    def capture(self, call: Callable[[], Results]) -> tuple[Results, Callable[[], None]]:
        captured = [t.detach() for t in call()]

        def replay() -> None:
            for kept, new in zip(captured, call(), strict=True):
                kept.copy_(new.detach())

        return captured, replay

    def memory(self, call: Callable[[], Any]) -> tuple[Any, int, int]:
        call()
        pytest.skip("the call ran, but torch does not count CPU memory")


GPU = Gpu() if torch.cuda.is_available() and _ops.CUDA.loaded else StandIn()
