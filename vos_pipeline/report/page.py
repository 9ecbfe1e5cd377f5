"""Write one self-contained HTML page per run: tables, all stages side by side over time, curves of J and F.

Each frame is stored once as a small JPEG. The masks of the stages are drawn over it as transparent indexed PNGs of a
few hundred bytes. A page with thousands of images therefore stays small and needs only a browser.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, TypeGuard

import numpy as np
from PIL import Image

from vos_pipeline.data import VOID, MaskFolder, davis_palette, read_image
from vos_pipeline.evaluation import Table
from vos_pipeline.files import replacing
from vos_pipeline.report.overlays import label_contours

COLOURS = ("#8c8c8c", "#2f6db5", "#d9822b", "#2e9e5b", "#a64ac9", "#c9302c")
TRUTH = "ground truth"


@dataclass(frozen=True)
class SequenceReport:
    """One video.

    Args:
        name: name of the sequence.
        stages: label PNG of every frame for each stage name.
        frame_paths: the frames.
        truth_paths: their ground-truth masks, None where unknown.
        curves: {"J": [...], "F": [...]} for each stage name, one value per frame; None or NaN if unknown.
    """

    name: str
    stages: dict[str, list[Path]]
    frame_paths: list[Path]
    truth_paths: list[Path | None] = field(default_factory=list)
    curves: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """The contents of a report page."""

    title: str
    tables: list[Table]
    sequences: list[SequenceReport]


def write_report(path_html: str | Path, run: ReportData, width: int = 427, limit: float = 18e6) -> Path:
    """Write the report page; an older page is replaced atomically.

    Args:
        path_html: output file.
        run: contents of the page.
        width: width of the embedded images in pixels.
        limit: approximate size limit of all images in bytes; longer videos show only every n-th frame.

    Raises:
        PipelineError: a frame or mask cannot be read.
        ValueError: a stage has a different number of frames than its sequence.
    """
    path = Path(path_html)
    share = limit / max(len(run.sequences), 1)
    sequences = [_sequence(s, f"sequence-{k}", width, share) for k, s in enumerate(run.sequences)]
    template = Template(files("vos_pipeline.report").joinpath("page.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=html.escape(run.title),
        tables="".join(table.html() for table in run.tables),
        navigation=_navigation(run.sequences),
        sequences="".join(body for body, _ in sequences),
        # "</" could end the script element; "<\\/" is the same string in JSON.
        data=json.dumps([images for _, images in sequences], allow_nan=False).replace("</", "<\\/"),
    )
    with replacing(path) as file:
        file.write(page.encode())
    return path


# --- images -------------------------------------------------------------------------------------------------


def _sequence(sequence: SequenceReport, anchor: str, width: int, limit: float) -> tuple[str, dict[str, Any]]:
    """Return the HTML section of a sequence and the data that the page's script shows in it."""
    count = len(sequence.frame_paths)
    columns: dict[str, list[Path | None]] = {stage: [*paths] for stage, paths in sequence.stages.items()}
    if any(sequence.truth_paths):
        columns[TRUTH] = list(sequence.truth_paths)
    for name, paths in columns.items():
        if len(paths) != count:
            raise ValueError(f"{sequence.name}: stage {name!r} must have {count} frames, got {len(paths)}")

    masks = {name: MaskFolder(path for path in paths if path) for name, paths in columns.items()}
    kept = _affordable(sequence, columns, masks, width, limit)
    images = {
        "times": kept,
        "frames": [_frame_uri(sequence.frame_paths[t], width) for t in kept],
        "masks": {
            name: [_mask_uri(masks[name], paths[t], width) for t in kept] for name, paths in columns.items()
        },
        "scores": {stage: _rounded(curves) for stage, curves in sequence.curves.items()},
    }
    name, cells = html.escape(sequence.name), "".join(_figure(stage, sequence.curves) for stage in columns)
    every = f"one of every {kept[1]} frames" if len(kept) > 1 else "only the first frame"
    note = "" if len(kept) == count else f" (showing {every})"
    body = (
        f'<section class="sequence" id="{anchor}"><h2>{name}<small>{count} frames{note}</small></h2>'
        f'<div class="stages">{cells}</div><div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{len(kept) - 1}" value="0" aria-label="frame of {name}">'
        f'<output></output><label><input type="checkbox" checked> masks</label></div>'
        f"{_curves(sequence.curves, count)}</section>\n"
    )
    return body, images


def _figure(stage: str, curves: dict[str, dict[str, list[float | None]]]) -> str:
    """Return the figure of a stage: the frame, the stage's mask over it, and the scores below."""
    name = html.escape(stage)
    dot = (
        f'<i style="background:{COLOURS[list(curves).index(stage) % len(COLOURS)]}"></i>'
        if stage in curves
        else ""
    )
    return (
        f'<figure><div class="view"><img class="frame" alt=""><img class="mask" data-stage="{name}" alt="{name}">'
        f'</div><figcaption><span>{dot}{name}</span><output data-stage="{name}"></output></figcaption></figure>'
    )


def _navigation(sequences: list[SequenceReport]) -> str:
    if len(sequences) < 2:
        return ""
    links = (f'<a href="#sequence-{k}">{html.escape(s.name)}</a>' for k, s in enumerate(sequences))
    return f"<nav>{''.join(links)}</nav>\n"


def _affordable(
    sequence: SequenceReport,
    columns: dict[str, list[Path | None]],
    masks: dict[str, MaskFolder],
    width: int,
    limit: float,
) -> list[int]:
    """Return the frames to show: all, or every n-th if the size of the first one predicts that all exceed the limit."""
    count = len(sequence.frame_paths)
    size = len(_frame_uri(sequence.frame_paths[0], width))
    size += sum(len(_mask_uri(masks[name], paths[0], width)) for name, paths in columns.items())
    return list(range(0, count, max(1, math.ceil(1.2 * size * count / limit))))


def _frame_uri(path: Path, width: int) -> str:
    image = Image.fromarray(read_image(path))
    image = image.resize(_fit(image.size, width), Image.Resampling.LANCZOS)
    return _uri(image, "JPEG", quality=72, optimize=True)


def _mask_uri(masks: MaskFolder, path: Path | None, width: int) -> str:
    """Return a transparent PNG of the labels: objects half transparent, boundaries solid."""
    if path is None:
        return ""
    image = Image.fromarray(masks.read(path))
    labels = np.array(image.resize(_fit(image.size, width), Image.Resampling.NEAREST))
    # Index k < 128 is the tint of label k, index 128 + k its boundary; labels above 127 reuse these colours.
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


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
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
    """Return one measure over time as SVG: x is 40..590 from the first to the last frame, y is 20..170 from 1 to 0."""

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
    for t in sorted({0, (count - 1) // 2, count - 1}):
        parts.append(f'<text x="{x(t):.1f}" y="186" text-anchor="middle">{t}</text>')
    parts.append(
        f'<line class="cursor" x1="40" x2="40" y1="20" y2="170" data-step="{550 / max(count - 1, 1):.4f}"/>'
    )
    return f'<svg viewBox="0 0 600 190" role="img" aria-label="{measure} over time">{"".join(parts)}</svg>'


def _unbroken(values: list[float | None]) -> list[list[tuple[int, float]]]:
    """Split a curve into runs of (t, value) without gaps."""
    runs: list[list[tuple[int, float]]] = [[]]
    for t, value in enumerate(values):
        if _known(value):
            runs[-1].append((t, value))
        else:
            runs.append([])
    return [run for run in runs if run]


def _rounded(curves: dict[str, list[float | None]]) -> dict[str, list[float | None]]:
    """Round values for JSON; unknown values become null."""
    return {name: [round(v, 4) if _known(v) else None for v in values] for name, values in curves.items()}


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and not math.isnan(value)
