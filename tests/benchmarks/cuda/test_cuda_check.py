"""`benchmarks/cuda/check.py` reads the compiler's report and PTX, and reports faults."""

from __future__ import annotations

import shutil

import pytest

from benchmarks.cuda.check import moves_apart, parse

pytestmark = pytest.mark.skipif(shutil.which("c++filt") is None, reason="needs c++filt of binutils")

NAME = "_ZN3spn4cuda14forward_kernelIfLi4EEEvNS_11ForwardArgsENS0_4PlanE"
REPORT = f"""ptxas info    : Compiling entry function '{NAME}' for 'sm_90'
ptxas info    : Function properties for {NAME}
    {{stack}} bytes stack frame, {{spills}} bytes spill stores, 0 bytes spill loads
ptxas info    : Used {{registers}} registers, used 1 barriers, 608 bytes cmem[0]
"""
WHOLE = "st.v4.b32 [%rd1], {%r1, %r2, %r3, %r4};"
APART = "@%p1 st.f32 [%rd1], %f1; @%p1 st.f32 [%rd1+4], %f2; st.global.u16 [%rd2], %rs1; st.global.u16 [%rd2+2], %rs2;"


def faults(code: str = WHOLE, registers: int = 168, stack: int = 0, spills: int = 0) -> list[str]:
    report = REPORT.format(registers=registers, stack=stack, spills=spills)
    (kernel,) = parse(report, f".visible .entry {NAME}(\n) {{ {code} }}", 90)
    assert kernel.name == "forward_kernel<float, 4>"
    return kernel.faults


def test_a_good_kernel_has_no_faults():
    assert faults() == []


def test_finds_spills_local_memory_and_too_many_registers():
    assert faults(spills=8) == ["spills 8 bytes"]
    assert faults(stack=16) == ["uses 16 bytes of local memory"]
    assert faults(registers=176) == ["needs 176 registers, the planned occupancy allows 168"]


def test_finds_separate_stores_and_loads_of_neighbouring_values():
    assert faults(APART) == ["accesses neighbouring values separately 2 times"]
    assert moves_apart("ld.f32 %f1, [%rd1+8]; ld.f32 %f2, [%rd1+12];") == 1


@pytest.mark.parametrize(
    "code",
    [
        "st.f32 [%rd1], %f1; st.f32 [%rd2+4], %f2;",  # another address
        "st.f32 [%rd1], %f1; st.f32 [%rd1+8], %f2;",  # not adjacent
        "ld.f32 %f1, [%rd1]; st.f32 [%rd1+4], %f1;",  # a load and a store
        "st.shared.f32 [%r1], %f1; st.shared.f32 [%r1+4], %f2;",  # shared memory
        "ld.param.f32 %f1, [%rd1]; ld.param.f32 %f2, [%rd1+4];",
        "ld.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1]; ld.v4.f32 {%f5, %f6, %f7, %f8}, [%rd1+16];",
    ],
)
def test_ignores_other_loads_and_stores(code: str):
    assert moves_apart(code) == 0
