"""Draw the figures and write the tables of docs/benchmarks.md from the JSON files in benchmarks/results.

    python -m docs.figures.benchmarks

reads   propagate_cpu.json   python -m benchmarks.operator.propagate
        propagate_cpu_tcmalloc.json   the same without rivals, with an allocator that keeps freed memory
        sizes_cpu.json       python -m benchmarks.operator.propagate, square maps of growing size
        compile_cpu.json     python -m benchmarks.operator.propagate --rivals compile, small square maps
        stages_cpu.json      python -m benchmarks.operator.stages
        restarts_cpu.json    python -m benchmarks.operator.restarts
writes  docs/_static/benchmarks/*.svg and docs/_generated/benchmarks_*.md
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from benchmarks.operator.cases import parse_case
from benchmarks.tables import markdown

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "_static" / "benchmarks"
TABLES = ROOT / "docs" / "_generated"

# Approximate operations per pixel in csrc/recurrence.h for "abs" and four directions; a reciprocal counts as one.
FORWARD_OPERATIONS = 4 * 20
BACKWARD_OPERATIONS = 4 * 60

PASSES = {"forward": "forward", "both": "forward + backward"}
PROVIDERS = {"native": "operator", "eager": "eager PyTorch"}
LARGEST = "1x32x512x512"
MARKERS = {"forward": "o", "both": "s"}


def load(name: str) -> dict:
    return json.loads((RESULTS / name).read_text())


def save(figure, name: str) -> None:
    """Save the figure without a date or random identifiers, so that equal numbers give equal files."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    plt.rcParams["svg.hashsalt"] = name
    figure.savefig(PICTURES / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def write_table(
    name: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str, words: int
) -> None:
    TABLES.mkdir(parents=True, exist_ok=True)
    table = markdown(header, rows, words=words)
    (TABLES / f"benchmarks_{name}.md").write_text(f"{table}\n\n{note}\n")


def machine_note(facts: dict) -> str:
    kernels = facts["kernels"][-1].replace(" 1 threads", " 1 thread")
    return (
        f"{facts['cpu']}, {kernels}; Python {facts['python']}, torch {facts['torch']}, "
        f"commit `{facts['commit']}`."
    )


def finished(rows: list[dict], **wanted: str) -> list[dict]:
    return [r for r in rows if "median_ms" in r and all(r[k] == v for k, v in wanted.items())]


def width_of(row: dict) -> int:
    return int(row["shape"].split("x")[-1])


def operations_per_byte(row: dict) -> float:
    operations = FORWARD_OPERATIONS + (0 if row["pass"] == "forward" else BACKWARD_OPERATIONS)
    return operations * math.prod(map(int, row["shape"].split("x"))) / row["minimum_bytes"]


def draw_roofline(results: dict) -> None:
    """Draw operations per second against operations per byte, with the limits of a copy and of a matrix product."""
    rows = finished(results["rows"], provider="native", case=LARGEST)
    bandwidth = max(r["minimum_bytes"] / r["copy_ms"] / 1e6 for r in rows)
    roof = results["machine"]["matmul_gigaflops"]
    figure, axes = plt.subplots(figsize=(6, 4))
    intensities = [0.25, roof / bandwidth, 64]
    axes.loglog(intensities, [min(roof, bandwidth * i) for i in intensities], color="black")
    axes.annotate("copy", (0.5, 0.62 * bandwidth), ha="right", va="bottom")
    axes.annotate("matrix product", (roof / bandwidth * 1.3, roof), va="bottom")
    for row in rows:
        intensity = operations_per_byte(row)
        axes.plot(
            intensity,
            intensity * row["gigabytes_per_second"],
            MARKERS[row["pass"]],
            label=f"{row['dtype']}, {PASSES[row['pass']]}",
        )
    axes.set(
        xlabel="operations per byte", ylabel="10⁹ operations per second", title="32 channels of 512 × 512"
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.16), ncols=2, frameon=False)
    axes.grid(alpha=0.3)
    save(figure, "roofline")


def draw_sizes(results: dict) -> None:
    """Draw the runtime for 8 channels of N x N against N; a line of slope 2 means a constant cost per pixel."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for provider in dict.fromkeys(r["provider"] for r in finished(results["rows"])):
        for name, marker in MARKERS.items():
            rows = finished(results["rows"], provider=provider, dtype="float32", **{"pass": name})
            if rows:
                sizes = [width_of(r) for r in rows]
                label = f"{PROVIDERS.get(provider, provider)}, {PASSES[name]}"
                axes.loglog(sizes, [r["median_ms"] for r in rows], marker=marker, label=label)
    rows = finished(results["rows"], provider="native", dtype="float32", **{"pass": "forward"})
    axes.loglog(
        [width_of(r) for r in rows],
        [r["copy_ms"] for r in rows],
        "--",
        color="grey",
        label="copy of the bytes of a forward pass",
    )
    sizes = [width_of(r) for r in rows]
    axes.set(xlabel="N", ylabel="runtime, ms", title="8 channels of N × N, float32")
    axes.set_xticks(sizes, sizes, minor=False)
    axes.set_xticks([], minor=True)
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    save(figure, "sizes")


def draw_speed_up(results: dict) -> None:
    rows = [r for r in finished(results["rows"], dtype="float32") if r["provider"] != "native"]
    labels = [
        f"{PROVIDERS.get(r['provider'], r['provider'])}, {r['shape']}, {PASSES[r['pass']]}" for r in rows
    ]
    figure, axes = plt.subplots(figsize=(6, 0.32 * len(rows) + 1))
    bars = axes.barh(labels, [r["ratio_to_native"] for r in rows], color="tab:blue")
    axes.bar_label(bars, [f" {r['ratio_to_native']:.1f}×" for r in rows])
    widest = max(r["ratio_to_native"] for r in rows)
    axes.set(xscale="log", xlabel="runtime relative to the operator", xlim=(1, 2 * widest))
    axes.invert_yaxis()
    save(figure, "speed_up")


def options_of(text: str) -> str:
    """Describe the options of a case, besides its shape."""
    case = parse_case(text)
    words = [f"G = {case.groups}"] if case.groups != case.shape[1] else []
    words += ["source"] if case.source else []
    words += [case.normalize] if case.normalize != "abs" else []
    words += ["one direction"] if case.direction else []
    return ", ".join(words)


def write_propagate(name: str, dtype: str, runs: Sequence[dict]) -> None:
    """Write one row per case and pass: the operator's runtime and its two ratios, for each run."""
    found = [
        {(r["case"], r["pass"]): r for r in finished(run["rows"], provider="native", dtype=dtype)}
        for run in runs
    ]
    rows = []
    for case, pass_name in found[0]:
        of_runs = [rows_of_run[case, pass_name] for rows_of_run in found]
        first = pass_name == "forward"
        named = ", ".join(filter(None, (of_runs[0]["shape"].replace("x", " × "), options_of(case))))
        cells = [named if first else "", PASSES[pass_name]]
        for r in of_runs:
            cells += [f"{r['median_ms']:.1f}", f"{r['ratio_to_copy']:.1f}", f"{r['ratio_to_fresh']:.1f}"]
        rows.append(cells)
    header = [f"N × C × H × W, {dtype}", "pass"]
    for run in runs:
        header += [f"{run['machine']['allocator']}: ms", "× copy", "× fresh memory"]
    commits = sorted({run["machine"]["commit"] for run in runs})
    note = machine_note({**runs[0]["machine"], "commit": "`, `".join(commits)})
    write_table(name, header, rows, note, words=2)


def write_rivals(results: dict) -> None:
    """Write one row per case and pass that a rival ran: the operator's runtime and the rivals' relative runtimes."""
    rows = {(r["case"], r["pass"], r["provider"]): r for r in finished(results["rows"], dtype="float32")}
    rivals = list(dict.fromkeys(provider for _, _, provider in rows if provider != "native"))
    table = []
    for case, name, provider in rows:
        others = [rows.get((case, name, rival)) for rival in rivals]
        if provider != "native" or not any(others):
            continue
        own = rows[case, name, "native"]
        low, high = own["quartiles_ms"]
        cells = [
            own["shape"].replace("x", " × "),
            PASSES[name],
            f"{own['median_ms']:.1f} ({low:.1f}–{high:.1f})",
        ]
        cells += [f"{own['gigabytes_per_second']:.1f}", megabytes(own)]
        for other in others:
            cells.append(f"{other['ratio_to_native']:.1f} ×, {megabytes(other)} MB" if other else "")
        table.append(cells)
    header = ["N × C × H × W, float32", "pass", "operator: ms (quartiles)", "GB/s", "peak MB"]
    header += [f"{PROVIDERS.get(rival, rival)}: ×, peak MB" for rival in rivals]
    unfinished = [
        f"{r['provider']} at {r['case']}: {r['unfinished']}." for r in results["rows"] if "unfinished" in r
    ]
    write_table("rivals", header, table, " ".join([machine_note(results["machine"]), *unfinished]), words=2)


def megabytes(row: dict) -> str:
    return "" if row["peak_megabytes"] is None else f"{row['peak_megabytes']:.0f}"


def write_fresh_memory(runs: Sequence[dict]) -> None:
    """Write the runtime of the same multiplication into existing and into new memory."""
    rows = []
    for facts in (run["machine"] for run in runs):
        existing, fresh = facts["multiplication"]["existing_ms"], facts["multiplication"]["fresh_ms"]
        rows.append((facts["allocator"], f"{existing:.0f}", f"{fresh:.0f}", f"{fresh / existing:.1f}"))
    large = runs[0]["machine"]["multiplication"]["megabytes"]
    header = ("allocator", f"`torch.mul(a, 2, out=b)`: ms, `a` of {large} MB", "`a * 2`: ms", "ratio")
    write_table("fresh_memory", header, rows, machine_note(runs[0]["machine"]), words=1)


def write_sizes(results: dict) -> None:
    rows = []
    for r in finished(results["rows"], provider="native", dtype="float32"):
        n, c, height, width = map(int, r["shape"].split("x"))
        nanoseconds = 1e6 * r["median_ms"] / (n * c * height * width)
        cells = (f"{width}", PASSES[r["pass"]], f"{r['median_ms']:.2f}", f"{nanoseconds:.2f}")
        rows.append((*cells, f"{r['ratio_to_copy']:.2f}"))
    header = ("N", "pass", "ms", "ns per pixel and channel", "× copy")
    write_table("sizes", header, rows, machine_note(results["machine"]), words=2)


def write_compile(results: dict) -> None:
    rows = []
    for r in results["rows"]:
        if r["provider"] == "compile":
            done = "unfinished" not in r
            took = (f"{r['median_ms']:.2f}", f"{r['ratio_to_native']:.0f}") if done else (r["unfinished"], "")
            rows.append((f"{width_of(r)}", PASSES[r["pass"]], *took))
    header = ("N", "pass", "ms", "× operator")
    write_table("compile", header, rows, machine_note(results["machine"]), words=2)


def write_stages(results: dict) -> None:
    rows = results["rows"]
    order = [(p, w) for p in ("forward", "backward") for w in ("caches", "memory")]
    table = []
    for direction in dict.fromkeys(r["direction"] for r in rows):
        found = {(r["pass"], r["from"]): r["ns_per_step"] for r in rows if r["direction"] == direction}
        table.append((f"`{direction}`", *(f"{found[key]:.1f}" for key in order)))
    header = ("direction", *(f"{p} from {w}: ns" for p, w in order))
    facts = results["machine"]
    overhead = facts["call_overhead_ns"]
    note = (
        f"`torch.sum` reads a cache line from memory in {facts['ns_per_line_read']:.1f} ns. The overhead per call "
        f"is {overhead['forward'] / 1e3:.1f} µs for forward and {overhead['backward'] / 1e3:.1f} µs for backward, "
        f"including autograd; it is not part of the table. {machine_note(facts)}"
    )
    write_table("stages", header, table, note, words=1)


def write_restarts(results: dict) -> None:
    """Write one row per shape and pass: milliseconds with restart_every, and the others' relative runtimes."""
    rows: dict[tuple[str, str], list[str]] = {}
    for r in results["rows"]:
        cells = rows.setdefault((r["shape"], r["pass"]), [r["shape"].replace("x", " × "), PASSES[r["pass"]]])
        alone = r["provider"] == "restart_every"
        cells.append(f"{r['median_ms']:.1f}" if alone else f"{r['ratio_to_restart_every']:.1f} ×")
    _, *others = dict.fromkeys(r["provider"] for r in results["rows"])
    names = (f"`{name}`" if name.startswith("spn") else name for name in others)
    header = ("N × C × H × W, float32", "pass", "`restart_every=2`: ms", *names)
    write_table("restarts", header, list(rows.values()), machine_note(results["machine"]), words=2)


def main() -> None:
    names = ("propagate", "sizes", "compile", "stages", "restarts")
    propagate, sizes, compiled, stages, restarts = (load(f"{name}_cpu.json") for name in names)
    runs = (propagate, load("propagate_cpu_tcmalloc.json"))
    draw_roofline(propagate)
    draw_speed_up(propagate)
    draw_sizes(sizes)
    write_propagate("propagate", "float32", runs)
    write_propagate("bfloat16", "bfloat16", runs)
    write_rivals(propagate)
    write_fresh_memory(runs)
    write_sizes(sizes)
    write_compile(compiled)
    write_stages(stages)
    write_restarts(restarts)
    print(f"wrote {PICTURES.relative_to(ROOT)} and {TABLES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
