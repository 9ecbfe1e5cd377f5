"""Memory baselines: calls that move and return the same number of bytes as the operator."""

import json

import pytest
import torch

from benchmarks import machine
from benchmarks.operator import comparisons, memory, propagate, providers
from benchmarks.operator.cases import inputs, parse_case


def test_the_copy_writes_into_existing_memory():
    copy = comparisons.copy_of(1000, "cpu")
    assert copy() is not None and copy().data_ptr() == copy().data_ptr()
    assert copy().nbytes == 500


def test_the_fresh_baseline_returns_new_tensors_of_the_same_size():
    made = comparisons.fresh_of(10_000, [400, 1200], "cpu")
    first, second = made(), made()
    assert [t.nbytes for t in first] == [400, 1200]
    assert {t.data_ptr() for t in first}.isdisjoint(t.data_ptr() for t in second)


@pytest.mark.parametrize(("asked", "read"), [(10_000, 10_000), (1000, 1600)])
def test_the_fresh_baseline_reads_the_same_number_of_bytes(asked, read, monkeypatch):
    sizes = []
    values = comparisons._values
    monkeypatch.setattr(
        comparisons, "_values", lambda size, device: sizes.append(size) or values(size, device)
    )
    comparisons.fresh_of(asked, [400, 1200], "cpu")
    assert sum(sizes) == read


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        # Lines 16 and 32 of each sweep's float32 state, and the selected direction in uint8.
        ("2x4x33x40", {2 * 4 * 2 * (40 + 40 + 33 + 33) * 4, 2 * 4 * 33 * 40}),
        ("2x4x33x40:source:sigmoid:left_to_right", {2 * 4 * 2 * 33 * 4}),
    ],
)
def test_saved_tensors_are_counted(text, kept):
    case = parse_case(text)
    given = inputs(case, torch.bfloat16, "cpu")
    sizes = comparisons.sizes_returned("both", providers.native(case), given)
    assert sizes[0] == given[0].nbytes
    assert sizes[-len(given) :] == [t.nbytes for t in given]
    assert set(sizes[1 : -len(given)]) == kept
    assert comparisons.sizes_returned("forward", providers.native(case), given) == [given[0].nbytes]


def test_a_saved_result_is_counted_once():
    assert comparisons.kept_bytes(torch.exp, [torch.ones(8)]) == []


def test_a_run_has_both_ratios_and_its_facts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(propagate, "LARGE_MEGABYTES", 1)
    monkeypatch.setattr(machine, "matmul_gigaflops", lambda: 1.0)
    path = tmp_path / "results.json"
    shapes = ["1x2x6x5", "1x4x6x5:G=2:source:sigmoid:top_to_bottom", "1x2x6x5:forward"]
    options = ["--seconds", "0", "--dtypes", "float32", "--rivals", "eager", "--json", str(path)]
    assert propagate.main(["--shapes", *shapes, *options]) == 0
    found = json.loads(path.read_text())
    assert found["machine"]["allocator"] == machine.allocator()
    assert set(found["machine"]["multiplication"]) == {"megabytes", "existing_ms", "fresh_ms"}
    rows = found["rows"]
    # Rivals run only without options.
    assert [(r["case"], r["pass"], r["provider"]) for r in rows] == [
        ("1x2x6x5", "forward", "native"),
        ("1x2x6x5", "forward", "eager"),
        ("1x2x6x5", "both", "native"),
        ("1x2x6x5", "both", "eager"),
        (shapes[1], "forward", "native"),
        (shapes[1], "both", "native"),
        (shapes[2], "forward", "native"),
    ]
    for row in rows:
        assert row["ratio_to_copy"] == row["median_ms"] / row["copy_ms"]
        assert row["ratio_to_fresh"] == row["median_ms"] / row["fresh_ms"]
    assert rows[4]["form"] == "source" and rows[4]["directions"] == "top_to_bottom" and rows[4]["groups"] == 2
    assert "ms into existing memory" in capsys.readouterr().out.splitlines()[0]


def test_a_wrong_operator_is_not_timed(monkeypatch):
    monkeypatch.setattr(providers, "native", lambda case: lambda x, *others: 2 * x)
    with pytest.raises(
        SystemExit, match=r"a provider disagrees with the reference: .*, 1x4x37x50:G=2:source"
    ):
        propagate.check_all([parse_case("1x8x64x64:G=4:source")], {}, torch.float32, "cpu")


def test_no_peak_is_measured_if_the_allocator_keeps_freed_memory(monkeypatch):
    monkeypatch.setattr(machine, "allocator", lambda: "tcmalloc")
    assert memory.peak_megabytes(lambda: None, "cpu") is None
