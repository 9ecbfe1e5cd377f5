"""Compare the runtime of the refiner and the four-way operator in onnxruntime and in torch.

    python -m benchmarks.refiner.onnx_times [--json FILE]

Both run every case alternately, with the same inputs, on one thread. Milliseconds are medians of processor time, which
depends little on the load of the machine. Ratios are relative to torch in whole frames, which is what the exported
model computes. The refiner's mask is a disc as wide as a third of the frame's height, at 1/16 of the resolution. The
JSON file also contains the size of the exported refiner and its number of nodes by type.

``python -m docs.figures.deployment`` writes the table of docs/deployment.md from the JSON file.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch
from torch import Tensor

import spn
from vos_pipeline.refiner import lose_resolution

from ..machine import describe, write_results
from ..tables import print_table

SIZES = ((240, 432), (480, 854))
# The refiner's maps at 480p, and a mask.
OPERATOR_CASES = {"1 x 24 x 240 x 427": 4, "1 x 1 x 480 x 854": 1}  # shape of x: number of channel groups
FACTOR = 16

Calls = dict[str, Callable[[], Any]]


def session_of(program: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = program.model_proto.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def disc(height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.float32)
    cv2.circle(mask, (width // 2, height // 2), height // 6, 1, -1)
    return lose_resolution(mask, FACTOR)


def refiner_calls(
    refiner: spn.SPNRefiner, session: onnxruntime.InferenceSession, size: tuple[int, int]
) -> Calls:
    image, coarse = torch.rand(1, 3, *size), torch.from_numpy(disc(*size))[None, None]
    feed = {"image": image.numpy(), "coarse": coarse.numpy()}

    def torch_with(windows: bool) -> Tensor:
        refiner.windows = windows
        return refiner(image, coarse)

    return {
        "torch": lambda: torch_with(False),
        "torch, windows": lambda: torch_with(True),
        "onnxruntime": lambda: session.run(None, feed),
    }


def operator_calls(shape: str, groups: int) -> Calls:
    n, c, h, w = (int(side) for side in shape.split(" x "))
    inputs = torch.randn(n, c, h, w), torch.randn(n, 4, 3, groups, h, w)
    layer = spn.FourWayPropagate(normalize="abs").eval()
    program = torch.onnx.export(
        layer, inputs, dynamo=True, verbose=False, custom_translation_table=spn.onnx.translations()
    )
    session = session_of(program)
    names = [value.name for value in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return {"torch": lambda: layer(*inputs), "onnxruntime": lambda: session.run(None, feed)}


@torch.inference_mode()
def measure(what: str, calls: Calls, repeats: int) -> list[dict[str, Any]]:
    """Return one row per way; the first run of each is not timed."""
    seconds: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(repeats + 1):
        for way, call in calls.items():
            start = time.process_time()
            call()
            seconds[way].append(time.process_time() - start)
    medians = {way: median(values[1:]) for way, values in seconds.items()}
    return [
        {"what": what, "way": way, "ms": 1e3 * value, "ratio_to_torch": value / medians["torch"]}
        for way, value in medians.items()
    ]


def nodes_of(program: Any) -> dict[str, int]:
    """Count nodes by type, most frequent first, without the bodies of Scans."""
    return dict(Counter(node.op_type for node in program.model.graph).most_common())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="lite", help="'lite' or a .safetensors file")
    parser.add_argument("--repeats", type=int, default=9, help="timed runs per case (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    refiner = spn.SPNRefiner.from_pretrained(args.weights)
    program = spn.onnx.export_refiner(refiner)
    session, rows = session_of(program), []
    for size in SIZES:
        what = f"refiner, {size[0]} x {size[1]}"
        rows += measure(what, refiner_calls(refiner, session, size), args.repeats)
    for shape, groups in OPERATOR_CASES.items():
        rows += measure(f"operator, {shape}", operator_calls(shape, groups), args.repeats)
    facts = describe("cpu") | {
        "onnxruntime": onnxruntime.__version__,
        "file, bytes": program.model_proto.ByteSize(),
        "nodes": nodes_of(program),
        "load": os.getloadavg()[0],
    }
    if args.json:
        write_results(args.json, facts, rows)
    print_table(
        [{k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows], False
    )


if __name__ == "__main__":
    main()
