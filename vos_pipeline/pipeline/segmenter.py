"""Segment the objects of one video frame by frame, as frames arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vos_pipeline.data import FirstFrame, MaskedVideo, check_frame, described
from vos_pipeline.errors import PipelineError
from vos_pipeline.nets import (
    ForegroundNet,
    foreground_mask,
    initial_foreground,
    instance_jobs,
    labels_from_scores,
    load_foreground,
    object_scores,
    resize_scores,
    train_instance,
    tune_foreground,
    working_image,
)
from vos_pipeline.pipeline.stage_names import CRAF, FINAL, FLOW, FOREGROUND, INSTANCE, SPN
from vos_pipeline.refiner import load_refiner
from vos_pipeline.settings import Preset, get_preset
from vos_pipeline.temporal import ConnectedRegionFilter, FlowFilter
from vos_pipeline.training import Compute, join_process_group


@dataclass(frozen=True)
class VideoNets:
    """The nets that segment one video.

    Args:
        foreground: the net that separates foreground from background.
        instances: one net per entry of ``vos_pipeline.nets.instance_jobs``.
        refiner: the SPN.
    """

    foreground: ForegroundNet
    instances: list[ForegroundNet]
    refiner: nn.Module


class Segmenter:
    """Segment the objects of one video frame by frame, given the mask of the first frame.

    The constructor tunes the nets on the first frame, which takes about ten minutes on a CPU with preset "small".
    The frames may come from a file, a camera or an array. Pass them in temporal order.

    Args:
        first_frame: uint8 RGB (H, W, 3).
        first_mask: integer or bool (H, W). 0 is background, each value from 1 to 254 is an object, 255 is void and
            read as background. Convert a black and white mask with ``mask > 0``.
        preset: "small", "demo", "paper" or a :class:`vos_pipeline.settings.Preset`. ``filter`` of the preset selects
            the stage that produces the labels.
        device: "cpu", "cuda", "cuda:1", or "auto" for CUDA if a GPU is available.
        foreground: file of the net from which the tuning starts: the ``foreground.pt`` written by ``spn-vos train
            foreground``, or by a run with the same preset. With None, the tuning starts from ImageNet weights if they
            exist for the backbone of the preset, and otherwise from random weights.
        nets: trained nets of the video. If given, the constructor skips the tuning and ignores ``foreground``.

    Attributes:
        object_ids: labels of the K objects, in the order of the first dimension of the scores.
        final: the stage that produces the labels of :meth:`step`.
        seconds: total seconds of each stage so far.

    Raises:
        ValueError: a frame or mask with another dtype or shape, or no object in the mask.
        vos_pipeline.errors.PipelineError: an unknown preset, device, refiner or net.

    Example:
        >>> segmenter = Segmenter(frames[0], first_mask)  # doctest: +SKIP
        >>> for frame in frames[1:]:  # doctest: +SKIP
        ...     labels = segmenter.step(frame)  # uint8 (H, W)

    Source: Cheng et al. 2017, figure 2. The flow filter replaces CRAF, the connected region-aware filter of the paper,
    unless the preset selects another filter.
    """

    def __init__(
        self,
        first_frame: np.ndarray,
        first_mask: np.ndarray,
        preset: str | Preset = "small",
        device: str = "auto",
        *,
        foreground: str | Path | None = None,
        nets: VideoNets | None = None,
    ) -> None:
        first = FirstFrame(first_frame, first_mask)
        self.preset = get_preset(preset)
        self._compute = Compute(join_process_group(device), self.preset.precision, self.preset.compile)
        self.object_ids, self.size = first.object_ids, first_mask.shape
        self.final = FINAL[self.preset.filter]
        with torch.random.fork_rng(
            devices=[]
        ):  # initialising new nets must not change the random state of the caller
            self.nets = nets or _tuned_nets(first, self.preset, self._compute, foreground)
        objects = np.stack([first_mask == k for k in self.object_ids])
        self._craf = ConnectedRegionFilter(objects, self.preset.craf)
        self._flow = FlowFilter(first_frame, objects, self.preset.flow)
        self._clock = _Clock(self._compute.device)
        self.seconds = self._clock.seconds

    def step(self, frame: np.ndarray) -> np.ndarray:
        """Return the labels of the next frame, uint8 (H, W), with the values of the first mask.

        Args:
            frame: uint8 RGB (H, W, 3), the frame that follows the previous one in time.
        """
        return self.labels(self.step_scores(frame)[self.final])

    @torch.no_grad()
    def step_scores(self, frame: np.ndarray) -> dict[str, np.ndarray]:
        """Return the scores of the next frame after every stage. Call it instead of :meth:`step`.

        Args:
            frame: uint8 RGB (H, W, 3), the frame that follows the previous one in time.

        Returns:
            float32 (K, H, W) in [0, 1] for "instance nets", "+ SPN", "+ CRAF" and "+ flow filter". Both filters receive
            the scores of the SPN. :meth:`labels` converts the scores of any stage to labels.
        """
        check_frame("frame", frame, self.size)
        preset, compute, clock, nets = self.preset, self._compute, self._clock, self.nets
        small = working_image(frame, preset.height, compute.device)
        image = working_image(frame, None, compute.device)
        with clock(INSTANCE):
            with clock(FOREGROUND), compute.autocast():
                inside = foreground_mask(
                    nets.foreground, small, preset.foreground_threshold, preset.flip_test
                )
            with compute.autocast():
                scores = object_scores(nets.instances, inside, small, preset.flip_test)
                scores = resize_scores(scores, (image.shape[1], image.shape[2]))
        with clock(SPN):
            refined = _array(nets.refiner(image[None], scores[None])[0])
        with clock(CRAF):
            region = self._craf.step(refined)
        with clock(FLOW):
            followed = self._flow.step(refined, frame)
        return {INSTANCE: _array(scores), SPN: refined, CRAF: region, FLOW: followed}

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """Return the labels of scores, uint8 (H, W).

        A pixel gets the object with the largest score, or 0 if no score reaches the threshold of the preset.

        Args:
            scores: (K, H, W), from any stage.

        Raises:
            ValueError: scores with another shape.
        """
        expected = (len(self.object_ids), *self.size)
        if scores.shape != expected:
            raise ValueError(f"scores must be (K, H, W) = {expected}, got {described(scores)}")
        return labels_from_scores(
            torch.from_numpy(scores), self.object_ids, self.preset.score_threshold
        ).numpy()


def _tuned_nets(
    first: MaskedVideo, preset: Preset, compute: Compute, foreground: str | Path | None
) -> VideoNets:
    """Tune nets on a first frame, without writing them to files."""
    # Before minutes of training, so that a damaged file fails at once.
    refiner = load_refiner(preset.chosen_refiner, compute.device)
    if foreground is None:
        start = compute.place(initial_foreground(preset)).eval()
    else:
        start = _given_foreground(Path(foreground), preset, compute)
    tuned = tune_foreground(start, [first], preset, None, compute)
    jobs = instance_jobs(first, preset)
    instances = [train_instance(tuned, first, objects, preset, None, compute) for objects in jobs]
    return VideoNets(tuned, instances, refiner)


def _given_foreground(path: Path, preset: Preset, compute: Compute) -> ForegroundNet:
    """Load a net from a file of the caller. Error messages must not advise deleting that file."""
    remedy = "give the foreground.pt of 'train foreground' or of a run with the same preset"
    if not path.is_file():
        raise PipelineError(f"{path}: no such file; {remedy}")
    try:
        return load_foreground(path, preset, compute)
    except PipelineError as error:
        raise PipelineError(
            f"{path}: is damaged or is not a foreground net of preset {preset.name}; {remedy}"
        ) from error


def _array(scores: Tensor) -> np.ndarray:
    return scores.float().cpu().numpy()


class _Clock:
    """Sum the seconds of each stage: ``with clock(stage): ...``."""

    def __init__(self, device: str) -> None:
        self.seconds = dict.fromkeys((FOREGROUND, INSTANCE, SPN, CRAF, FLOW), 0.0)
        self.device = device

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[stage] += time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.startswith("cuda"):  # CUDA calls return before the GPU has finished
            torch.cuda.synchronize(self.device)
