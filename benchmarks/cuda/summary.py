"""Summarise the results of benchmarks/gpu.sh in at most ten lines: ``python -m benchmarks.cuda.summary OUT SECONDS``.

The command reads log.txt, tests.jsonl and gpu.json, if they exist, and writes summary.txt. It needs only Python.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

SANITIZERS = ("memcheck", "initcheck", "synccheck", "racecheck")
WIDTH = 600  # characters per line


def text_of(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def json_of(text: str) -> dict:
    """Parse JSON; return an empty dict for an unfinished line or file."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def sections(log: str) -> dict[str, str]:
    """Return the output of each stage, between "== name (" and "== name: verdict"."""
    found = re.finditer(r"^== (\w+) \(at most.*?\n(.*?)(?=^== \1: |\Z)", log, re.M | re.S)
    return {match[1]: match[2] for match in found}


def verdicts(log: str) -> dict[str, str]:
    return dict(re.findall(r"^== (\w+): (.*)$", log, re.M))


def title(facts: dict, seconds: str) -> str:
    where = [facts.get("gpu", "no GPU seen"), f"torch {facts.get('torch', '?')}"]
    where += [f"CUDA {facts['cuda']}"] if facts.get("cuda") else []
    where += [f"commit {facts.get('commit', '?')}", f"{seconds} s"]
    return ", ".join(where)


def tests(text: str) -> list[str]:
    """Return a line of counts and, if tests failed, a line of their names and one with the first message."""
    results = [line for line in map(json_of, text.splitlines()) if line]
    failures: dict[str, str] = {}  # the first message of each test; a lost worker adds a second one
    for r in results:
        if r["outcome"] == "failed":
            failures.setdefault(r["test"], r.get("message", ""))
    ended = {r["test"]: r["outcome"] for r in results if r["outcome"] != "started"}
    ended.update(dict.fromkeys(failures, "failed"))
    counts = [f"{list(ended.values()).count(o)} {o}" for o in ("passed", "failed", "skipped")]
    unfinished = list(dict.fromkeys(r["test"] for r in results if r["test"] not in ended))
    lines = ["tests: " + ", ".join(counts)]
    if unfinished:
        lines[0] += f", {len(unfinished)} unfinished ({', '.join(map(short, unfinished[:3]))})"
    if failures:
        names = list(failures)
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        lines.append("failed: " + ", ".join(map(short, names[:6])) + more)
        lines.append(f"first: {failures[names[0]].strip()}".replace("\n", " | "))
    return lines


def short(test: str) -> str:
    return test.rsplit("::", 1)[-1]


def sanitizers(log: str) -> list[str]:
    written, ended = sections(log), verdicts(log)
    words = []
    for tool in SANITIZERS:
        if tool not in ended:
            continue
        text = written.get(tool, "")
        errors = re.search(r"SUMMARY: (\d+) (?:error|hazard)", text)
        ran = re.search(r"\d+ of \d+ problems(?: listed)?", text)
        begun = re.findall(r"^\s*(\d+): ", text, re.M)
        known = f"{errors[1]} found" if errors else ended[tool]
        problems = f" in {ran[0]}" if ran else f", cut in problem {begun[-1]}" if begun else ""
        words.append(f"{tool} {known}{problems}")
    return ["sanitizers: " + "; ".join(words)] if words else []


def figure(row: dict) -> str:
    if "error" in row:
        return f"{row['dtype']} {row['error'][:60]}"
    words = [f"{row['dtype']} {row['median_ms']:.4g} ms"]
    for key, word in (("bandwidth_efficiency", "bandwidth"), ("schedule_efficiency", "schedule")):
        words += [f"{word} {row[key]:.2f}"] if key in row else []
    words += [f"predicted {row['predicted_ms']:.3g}"] if "predicted_ms" in row else []
    return " ".join(words)


def timings(found: dict) -> list[str]:
    facts, rows = found.get("machine", {}), found.get("rows", [])
    copy = facts.get("copy_bytes_per_second")
    if not copy:
        return []
    failed = sum("error" in row for row in rows)
    # Clocks of multiprocessors and memory, temperature, power and throttling reasons.
    busy = (facts.get("clocks") or {}).get("busy")
    lines = [f"copy {copy / 1e12:.3g} TB/s; {len(rows)} timings, {failed} failed; while busy: {busy}"]
    shapes: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        # The rows of small maps with a flushed cache are only in gpu.json.
        if row.get("part") == "headline" and row.get("cache") != "flushed":
            shapes.setdefault(row["shape"], {}).setdefault(row["name"], []).append(figure(row))
    for shape, names in shapes.items():
        lines.append(f"{shape}: " + "; ".join(f"{name} {', '.join(f)}" for name, f in names.items()))
    return lines


def summary(out: Path, seconds: str) -> str:
    log, found = text_of(out / "log.txt"), json_of(text_of(out / "gpu.json"))
    facts = found.get("machine", {})
    lines = [title(facts, seconds)]
    lines.append("stages: " + ", ".join(f"{name} {verdict}" for name, verdict in verdicts(log).items()))
    if (out / "tests.jsonl").exists():
        lines += tests(text_of(out / "tests.jsonl"))
    lines += sanitizers(log)
    lines += timings(found)
    if facts.get("stand_in") or os.environ.get("SPN_GPU_STAND_IN"):
        lines[0] = f"STAND-IN, nothing is measured: {lines[0]}"
        lines[1:] = [f"stand-in {line}" for line in lines[1:]]
    return "\n".join(line[:WIDTH] for line in lines[:10]) + "\n"


def main() -> None:
    out = Path(sys.argv[1])
    unfinished = out / "summary.unfinished"
    unfinished.write_text(summary(out, sys.argv[2]))
    unfinished.replace(out / "summary.txt")


if __name__ == "__main__":
    main()
