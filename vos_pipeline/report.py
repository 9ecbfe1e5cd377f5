"""One self-contained HTML page for a run: tables, every stage side by side through time, curves of J and F.

Each frame is stored once, as a small JPEG; the stages lie over it as transparent indexed PNGs of a few
hundred bytes, so that a page with thousands of pictures stays small and needs nothing but a browser.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from vos_pipeline.images import VOID, davis_palette, read_image, read_labels
from vos_pipeline.overlays import label_contours

COLOURS = ("#8c8c8c", "#2f6db5", "#d9822b", "#2e9e5b", "#a64ac9", "#c9302c")
TRUTH = "truth"


@dataclass(frozen=True)
class SequenceReport:
    """One video.

    Args:
        name: of the sequence.
        stages: stage name to the label PNG of every frame.
        frame_paths: the frames.
        truth_paths: their true masks, None where unknown.
        curves: stage name to {"J": [...], "F": [...]}, a value a frame; None or NaN where there is none.
    """

    name: str
    stages: dict[str, list[Path]]
    frame_paths: list[Path]
    truth_paths: list[Path | None] = field(default_factory=list)
    curves: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """What a page shows: tables are (caption, header, rows); floats get three decimals."""

    title: str
    tables: list[tuple[str, list[str], list[list]]]
    sequences: list[SequenceReport]


def write_report(path_html: str | Path, run: ReportData, width: int = 320, limit: float = 18e6) -> Path:
    """Write the page; it replaces an older one at once.

    Args:
        width: of the embedded pictures in pixels.
        limit: bytes that the pictures may take; frames are left out evenly until they do.

    Raises:
        PipelineError: a frame or mask can not be read.
        ValueError: a stage has another number of frames than its sequence.
    """
    path = Path(path_html)
    sequences = [_sequence(s, width, limit / max(len(run.sequences), 1)) for s in run.sequences]
    page = _PAGE.substitute(
        title=html.escape(run.title),
        tables="".join(_table(*table) for table in run.tables),
        sequences="".join(body for body, _ in sequences),
        # "</" would end the script; JSON reads "<\\/" as the same.
        data=json.dumps([pictures for _, pictures in sequences]).replace("</", "<\\/"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


# --- tables -------------------------------------------------------------------------------------------------


def _table(caption: str, header: list[str], rows: list[list]) -> str:
    head = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    caption = html.escape(caption)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return html.escape(str(value))


# --- pictures -----------------------------------------------------------------------------------------------


def _sequence(sequence: SequenceReport, width: int, limit: float) -> tuple[str, dict]:
    """The section of a sequence, and what the page's script shows in it."""
    count = len(sequence.frame_paths)
    columns: dict[str, list[Path | None]] = dict(sequence.stages)
    if any(sequence.truth_paths):
        columns[TRUTH] = list(sequence.truth_paths)
    for name, paths in columns.items():
        if len(paths) != count:
            raise ValueError(f"{sequence.name}: stage {name!r} must have {count} frames, got {len(paths)}")

    kept = _affordable(sequence, columns, width, limit)
    masks = {name: [_mask_uri(paths[t], width) for t in kept] for name, paths in columns.items()}
    pictures = {
        "times": kept,
        "frames": [_frame_uri(sequence.frame_paths[t], width) for t in kept],
        "masks": masks,
    }
    cells = "".join(
        f'<figure><div class="picture"><img class="frame" alt="">'
        f'<img class="mask" data-stage="{html.escape(name)}" alt=""></div>'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name in columns
    )
    note = "" if len(kept) == count else f" (every {kept[1] - kept[0]}th frame is shown)"
    body = (
        f'<section class="sequence"><h2>{html.escape(sequence.name)}<small>{count} frames{note}</small></h2>'
        f'<div class="stages">{cells}</div><div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{len(kept) - 1}" value="0" aria-label="frame of '
        f'{html.escape(sequence.name)}"><output></output></div>{_curves(sequence.curves, count)}</section>\n'
    )
    return body, pictures


def _affordable(sequence: SequenceReport, columns: dict, width: int, limit: float) -> list[int]:
    """The frames to show: all, or every n-th if the first one says that all would be too much."""
    count = len(sequence.frame_paths)
    size = len(_frame_uri(sequence.frame_paths[0], width))
    size += sum(len(_mask_uri(paths[0], width)) for paths in columns.values())
    return list(range(0, count, max(1, math.ceil(1.2 * size * count / limit))))


def _frame_uri(path: Path, width: int) -> str:
    image = Image.fromarray(read_image(path))
    image = image.resize(_fit(image.size, width), Image.Resampling.LANCZOS)
    return _uri(image, "JPEG", quality=72, optimize=True)


def _mask_uri(path: Path | None, width: int) -> str:
    """A transparent picture of the labels: half a tint, contours solid."""
    if path is None:
        return ""
    image = Image.fromarray(read_labels(path))
    labels = np.array(image.resize(_fit(image.size, width), Image.Resampling.NEAREST))
    # Index k below 128 is the tint of label k, index 128 + k its contour; labels beyond 127 share colours.
    labels = np.where((labels > 127) & (labels != VOID), labels % 127 + 1, labels)
    labels = np.where(labels == VOID, 0, labels).astype(np.uint8)
    drawn = Image.fromarray(labels + 128 * label_contours(labels).astype(np.uint8))
    colours = davis_palette()[:128]
    drawn.putpalette(
        np.concatenate([colours, np.minimum(colours.astype(int) + 90, 255)]).astype(np.uint8).tobytes()
    )
    return _uri(drawn, "PNG", optimize=True, transparency=bytes([0] + [115] * 127 + [255] * 128))


def _fit(size: tuple[int, int], width: int) -> tuple[int, int]:
    width = min(width, size[0])
    return width, max(1, round(size[1] * width / size[0]))


def _uri(image: Image.Image, kind: str, **options) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


# --- curves -------------------------------------------------------------------------------------------------


def _curves(curves: dict[str, dict[str, list[float | None]]], count: int) -> str:
    if not curves:
        return ""
    key = "".join(
        f'<span><i style="background:{COLOURS[k % len(COLOURS)]}"></i>{html.escape(name)}</span>'
        for k, name in enumerate(curves)
    )
    charts = "".join(_chart(measure, curves, count) for measure in ("J", "F"))
    return f'<div class="curves">{charts}</div><div class="key">{key}</div>'


def _chart(measure: str, curves: dict[str, dict[str, list[float | None]]], count: int) -> str:
    """One measure over time as SVG: x is 40..590 from the first to the last frame, y 20..170 from 1 to 0."""

    def x(t: int) -> float:
        return 40 + 550 * t / max(count - 1, 1)

    parts = [f'<text class="name" x="40" y="13">{measure}</text>']
    for tick in (0, 0.5, 1):
        y = 170 - 150 * tick
        parts.append(f'<line class="grid" x1="40" x2="590" y1="{y}" y2="{y}"/><text x="34" y="{y + 4}" '
                     f'text-anchor="end">{tick}</text>')  # fmt: skip
    for k, (name, values) in enumerate(curves.items()):
        for run in _unbroken(values.get(measure, [])):
            points = " ".join(f"{x(t):.1f},{170 - 150 * value:.1f}" for t, value in run)
            parts.append(f'<polyline points="{points}" stroke="{COLOURS[k % len(COLOURS)]}">'
                         f"<title>{html.escape(name)}</title></polyline>")  # fmt: skip
    parts.append(
        f'<line class="cursor" x1="40" x2="40" y1="20" y2="170" data-step="{550 / max(count - 1, 1):.4f}"/>'
    )
    return f'<svg viewBox="0 0 600 180" role="img" aria-label="{measure} over time">{"".join(parts)}</svg>'


def _unbroken(values: list[float | None]) -> list[list[tuple[int, float]]]:
    """Runs of (t, value) without a gap."""
    runs: list[list[tuple[int, float]]] = [[]]
    for t, value in enumerate(values):
        if value is None or math.isnan(value):
            runs.append([])
        else:
            runs[-1].append((t, value))
    return [run for run in runs if run]


# --- the page -----------------------------------------------------------------------------------------------

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #1d2430; --soft: #667085; --line: #dfe3ea; --paper: #f6f7f9; --card: #fff; --accent: #2f6db5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #343b48; --paper: #14171d; --card: #1d222b;
    --accent: #6aa5e8; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1500px; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 1.2rem; font-size: 1.7rem; }
h2 { margin: 0 0 .8rem; font-size: 1.15rem; }
small { margin-left: .7rem; color: var(--soft); font-weight: 400; font-size: .85rem; }
.tables { display: flex; flex-wrap: wrap; gap: 1.2rem; align-items: flex-start; }
table, .sequence { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: separate; border-spacing: 0; overflow: hidden; font-variant-numeric: tabular-nums; }
caption { padding: .2rem 0 .5rem; text-align: left; color: var(--soft); }
th, td { padding: .4rem .9rem; text-align: right; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.sequence { margin-top: 1.5rem; padding: 1.1rem 1.2rem; }
.stages { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .8rem; }
figure { margin: 0; }
figcaption { margin-top: .25rem; color: var(--soft); font-size: .88rem; text-align: center; }
.picture { position: relative; line-height: 0; border-radius: 6px; overflow: hidden; background: #000; }
.picture img { width: 100%; }
.picture .mask { position: absolute; inset: 0; height: 100%; image-rendering: pixelated; }
.mask[src=""], .mask:not([src]) { visibility: hidden; }
.controls { display: flex; align-items: center; gap: .9rem; margin: .9rem 0 .4rem; }
.controls input { flex: 1; accent-color: var(--accent); }
.controls output { min-width: 7.5em; text-align: right; color: var(--soft);
  font-variant-numeric: tabular-nums; }
button { padding: .3rem .9rem; border: 1px solid var(--line); border-radius: 6px; background: var(--paper);
  color: inherit; font: inherit; cursor: pointer; min-width: 4.6em; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 1rem; }
svg { width: 100%; font: 11px system-ui, sans-serif; }
svg text { fill: var(--soft); }
svg .name { font-weight: 600; font-size: 13px; fill: var(--ink); }
svg polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
svg .grid { stroke: var(--line); }
svg .cursor { stroke: var(--ink); stroke-dasharray: 3 3; opacity: .6; }
.key { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; color: var(--soft); font-size: .88rem; }
.key i { display: inline-block; width: 1.3em; height: .25em; margin-right: .45em; vertical-align: middle;
  border-radius: 2px; }
</style>
</head>
<body>
<h1>$title</h1>
<div class="tables">
$tables</div>
$sequences
<noscript><p>The pictures need JavaScript.</p></noscript>
<script id="pictures" type="application/json">$data</script>
<script>
"use strict";
const pictures = JSON.parse(document.getElementById("pictures").textContent);
document.querySelectorAll(".sequence").forEach((section, index) => {
  const { times, frames, masks } = pictures[index];
  const slider = section.querySelector("input"), button = section.querySelector("button");
  let timer = null;
  function show() {
    const k = Number(slider.value);
    for (const image of section.querySelectorAll(".frame")) image.src = frames[k];
    for (const image of section.querySelectorAll(".mask")) {
      const mask = masks[image.dataset.stage][k];
      if (mask) image.src = mask; else image.removeAttribute("src");
    }
    for (const cursor of section.querySelectorAll(".cursor")) {
      const x = 40 + cursor.dataset.step * times[k];
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    }
    section.querySelector("output").value = "frame " + times[k];
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  slider.addEventListener("input", () => { stop(); show(); });
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    button.textContent = "Pause";
    timer = setInterval(() => { slider.value = (Number(slider.value) + 1) % frames.length; show(); }, 100);
  });
  show();
});
</script>
</body>
</html>
""")
