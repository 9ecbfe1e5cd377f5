"""Draws the pictures and writes the tables of docs/benchmarks.md from the JSON files under benchmarks/results/.

    python -m docs.figures.benchmarks

reads   propagate_cpu.json   python -m benchmarks.operator.propagate
        sizes_cpu.json       python -m benchmarks.operator.propagate, square maps of growing size
        compile_cpu.json     python -m benchmarks.operator.propagate --rivals compile, small square maps
        stages_cpu.json      python -m benchmarks.operator.stages
writes  docs/_static/benchmarks/*.svg and docs/_generated/benchmarks_*.md
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from benchmarks.operator.propagate import BACKWARD_ELEMENTS, FORWARD_ELEMENTS
from benchmarks.tables import markdown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "_static" / "benchmarks"
TABLES = ROOT / "docs" / "_generated"

# Operations of a step in csrc/recurrence.h at "abs", four directions: roughly; a reciprocal counts as one.
FORWARD_OPERATIONS = 4 * 20
BACKWARD_OPERATIONS = 4 * 60

PASSES = {"forward": "forward", "both": "forward and backward"}
MARKERS = {"forward": "o", "both": "s"}


def load(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def save(figure, name: str) -> None:
    """The same file for the same numbers: no date, no random identifiers."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = name
    figure.savefig(PICTURES / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def write_table(name: str, header: tuple[str, ...], rows: list[tuple[str, ...]], note: str) -> None:
    TABLES.mkdir(parents=True, exist_ok=True)
    table = markdown(header, rows, words=3)
    (TABLES / f"benchmarks_{name}.md").write_text(f"{table}\n\n{note}\n")


def machine_note(facts: dict) -> str:
    return (
        f"{facts['cpu']}, {facts['threads']} threads; Python {facts['python']}, torch {facts['torch']}, "
        f"commit `{facts['commit']}`."
    )


def finished(rows: list[dict], **wanted: str) -> list[dict]:
    return [r for r in rows if "median_ms" in r and all(r[k] == v for k, v in wanted.items())]


def width_of(row: dict) -> int:
    return int(row["shape"].split("x")[-1])


def operations_per_byte(row: dict) -> float:
    size = {"float64": 8, "float32": 4}.get(row["dtype"], 2)
    if row["pass"] == "forward":
        return FORWARD_OPERATIONS / (size * FORWARD_ELEMENTS)
    return (FORWARD_OPERATIONS + BACKWARD_OPERATIONS) / (size * (FORWARD_ELEMENTS + BACKWARD_ELEMENTS))


def draw_roofline(results: dict) -> None:
    """Operations a second against operations a byte, under the copy's bandwidth and a matrix product's speed."""
    rows = finished(results["rows"], provider="native")
    bandwidth = max(r["minimum_bytes"] / r["copy_ms"] / 1e6 for r in rows if r["shape"] == "1x32x512x512")
    roof = results["machine"]["matmul_gigaflops"]
    figure, axes = plt.subplots(figsize=(6, 4))
    intensities = [0.25, roof / bandwidth, 64]
    axes.loglog(intensities, [min(roof, bandwidth * i) for i in intensities], color="black")
    axes.annotate("copy", (0.5, 0.62 * bandwidth), ha="right", va="bottom")
    axes.annotate("matrix product", (roof / bandwidth * 1.3, roof), va="bottom")
    for row in rows:
        if row["shape"] != "1x32x512x512":
            continue
        intensity = operations_per_byte(row)
        axes.plot(
            intensity,
            intensity * row["gigabytes_per_second"],
            MARKERS[row["pass"]],
            label=f"{row['dtype']}, {PASSES[row['pass']]}",
        )
    axes.set(xlabel="operations a byte", ylabel="10⁹ operations a second", title="32 channels of 512 × 512")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2, frameon=False)
    axes.grid(alpha=0.3)
    save(figure, "roofline")


def draw_sizes(results: dict) -> None:
    """Time of 8 channels of N x N against N: a line of slope 2 costs as much a pixel at every size."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for provider in dict.fromkeys(r["provider"] for r in finished(results["rows"])):
        for name, marker in MARKERS.items():
            rows = finished(results["rows"], provider=provider, dtype="float32", **{"pass": name})
            if rows:
                sizes = [width_of(r) for r in rows]
                label = f"{provider}, {PASSES[name]}"
                axes.loglog(sizes, [r["median_ms"] for r in rows], marker=marker, label=label)
    rows = finished(results["rows"], provider="native", dtype="float32", **{"pass": "forward"})
    axes.loglog(
        [width_of(r) for r in rows],
        [r["copy_ms"] for r in rows],
        "--",
        color="grey",
        label="copy of as many bytes as forward",
    )
    sizes = [width_of(r) for r in rows]
    axes.set(xlabel="N", ylabel="ms", title="8 channels of N × N, float32")
    axes.set_xticks(sizes, sizes, minor=False)
    axes.set_xticks([], minor=True)
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    save(figure, "sizes")


def draw_speed_up(results: dict) -> None:
    rows = [r for r in finished(results["rows"], dtype="float32") if r["provider"] != "native"]
    labels = [f"{r['provider']}, {r['shape']}, {PASSES[r['pass']]}" for r in rows]
    figure, axes = plt.subplots(figsize=(6, 0.32 * len(rows) + 1))
    bars = axes.barh(labels, [r["ratio_to_native"] for r in rows], color="tab:blue")
    axes.bar_label(bars, [f" {r['ratio_to_native']:.1f}×" for r in rows])
    widest = max(r["ratio_to_native"] for r in rows)
    axes.set(xscale="log", xlabel="times the operator's time", xlim=(1, 2 * widest))
    axes.invert_yaxis()
    save(figure, "speed_up")


def write_propagate(results: dict) -> None:
    rows = [
        (
            r["shape"].replace("x", " × "),
            r["dtype"],
            f"{r['provider']}, {PASSES[r['pass']]}",
            f"{r['median_ms']:.2f} ({r['quartiles_ms'][0]:.2f}–{r['quartiles_ms'][1]:.2f})",
            f"{r['minimum_bytes'] / 1e6:.0f}",
            f"{r['gigabytes_per_second']:.1f}",
            f"{r['copy_ms']:.2f}",
            f"{r['ratio_to_copy']:.2f}",
            f"{r['ratio_to_native']:.1f}",
            "" if r["peak_megabytes"] is None else f"{r['peak_megabytes']:.0f}",
        )
        for r in finished(results["rows"])
    ]
    header = ("shape", "dtype", "who, pass", "ms, median (quartiles)", "minimum MB", "GB/s", "copy ms")
    header += ("× copy", "× native", "peak MB")
    unfinished = [
        f"{r['provider']} at {r['shape']}: {r['unfinished']}" for r in results["rows"] if "unfinished" in r
    ]
    note = machine_note(results["machine"])
    write_table("propagate", header, rows, " ".join([note, *(f"{u}." for u in unfinished)]))


def write_sizes(results: dict) -> None:
    rows = []
    for r in finished(results["rows"], provider="native", dtype="float32"):
        n, c, height, width = map(int, r["shape"].split("x"))
        nanoseconds = 1e6 * r["median_ms"] / (n * c * height * width)
        cells = (f"{width}", PASSES[r["pass"]], f"{r['median_ms']:.2f}", f"{nanoseconds:.2f}")
        rows.append((*cells, f"{r['ratio_to_copy']:.2f}"))
    header = ("N", "pass", "ms", "ns a pixel and channel", "× copy")
    write_table("sizes", header, rows, machine_note(results["machine"]))


def write_compile(results: dict) -> None:
    rows = []
    for r in results["rows"]:
        if r["provider"] == "compile":
            done = "unfinished" not in r
            took = (f"{r['median_ms']:.2f}", f"{r['ratio_to_native']:.0f}") if done else (r["unfinished"], "")
            rows.append((f"{width_of(r)}", PASSES[r["pass"]], *took))
    header = ("N", "pass", "ms", "× native")
    write_table("compile", header, rows, machine_note(results["machine"]))


def write_stages(results: dict) -> None:
    rows = results["rows"]
    table = []
    for direction in dict.fromkeys(r["direction"] for r in rows):
        found = {(r["pass"], r["from"]): r["ns_per_step"] for r in rows if r["direction"] == direction}
        order = [(p, w) for p in ("forward", "backward") for w in ("caches", "memory")]
        table.append((f"`{direction}`", *(f"{found[key]:.1f}" for key in order)))
    header = ("direction", "forward, caches", "forward, memory", "backward, caches", "backward, memory")
    facts = results["machine"]
    overhead = facts["call_overhead_ns"]
    note = (
        f"Nanoseconds for 16 values on one thread. A cache line read by `torch.sum` takes "
        f"{facts['ns_per_line_read']:.1f} ns, a call {overhead['forward'] / 1e3:.1f} µs forward and "
        f"{overhead['backward'] / 1e3:.1f} µs backward, autograd included. {machine_note(facts)}"
    )
    write_table("stages", header, table, note)


def main() -> None:
    names = ("propagate", "sizes", "compile", "stages")
    propagate, sizes, compiled, stages = (load(f"{name}_cpu.json") for name in names)
    draw_roofline(propagate)
    draw_speed_up(propagate)
    draw_sizes(sizes)
    write_propagate(propagate)
    write_sizes(sizes)
    write_compile(compiled)
    write_stages(stages)
    print(f"wrote {PICTURES.relative_to(ROOT)} and {TABLES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
