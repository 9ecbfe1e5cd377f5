"""The whole pipeline: sequences in, label maps after every stage and their scores out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

import spn
from vos_pipeline.batches import working_image
from vos_pipeline.craf import ConnectedRegionFilter
from vos_pipeline.data import Sequence, load_davis
from vos_pipeline.errors import PipelineError
from vos_pipeline.instances import (
    foreground_mask,
    instance_jobs,
    labels_from_scores,
    object_scores,
    resize_scores,
    train_instance,
)
from vos_pipeline.model import ForegroundNet
from vos_pipeline.presets import Preset, get_preset
from vos_pipeline.run_folder import CRAF, FOREGROUND, INSTANCE, REPEATED, SPN, STAGES, RunFolder, RunResult
from vos_pipeline.train import (
    autocast,
    finetune_foreground,
    initial_net,
    join_process_group,
    memory_format,
    process_rank,
    train_foreground,
)


def run(
    data_root: Path,
    sequences: list[Sequence],
    out: Path,
    *,
    preset: str | Preset = "small",
    device: str = "cpu",
    resume: bool = False,
    train_sequences: list[Sequence] | None = None,
) -> RunResult:
    """Segment the sequences: nets, scores, SPN, CRAF, labels after each, metrics.

    Everything lands in ``out``: ``labels/<stage>/<sequence>/<frame>.png``, ``nets/`` and ``seconds/``.

    Under ``torchrun`` all ranks train the foreground net together, each on its part of every batch; then each
    takes its share of the objects to train nets for, and of the sequences to segment.  From one foreground
    net, any number of ranks gives the labels that one process with as many threads as a rank does, bit for
    bit; the foreground net itself differs by the rounding of a sum over ranks.

    Args:
        data_root: a DAVIS root; its train set is what the foreground net is trained on unless given.
        sequences: what to segment; the first mask of each is given.
        out: folder of the results.
        preset: name or constants.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
        resume: go on from what an earlier run with the same preset left in ``out``.
        train_sequences: for the foreground net; an empty list leaves it the first frames alone.

    Raises:
        PipelineError: no sequence, an unknown preset, or ``resume`` in a folder of another run.
    """
    preset, folder = get_preset(preset), RunFolder(Path(out))
    if not sequences:
        raise PipelineError("no sequence to segment: name at least one")
    if train_sequences is None:
        train_sequences = default_train_sequences(Path(data_root), exclude=sequences)
    device = join_process_group(device)
    if process_rank()[0] == 0:
        folder.open(preset, train_sequences, sequences, resume)
    _wait_for_all()

    # What is there belongs to this run now: every stage goes on from it.
    nets = folder.nets
    foreground = _shared_foreground(train_sequences, sequences, preset, device, nets)
    todo = [sequence for sequence in sequences if not folder.is_done(sequence)]
    _wait_for_all()  # before anyone finishes a sequence that another has not looked for yet
    for sequence in _my_share(todo):
        _foreground_of(sequence, foreground, preset, device, nets)
    _wait_for_all()
    for sequence, objects in _my_share([(s, job) for s in todo for job in instance_jobs(s, preset)]):
        own = _foreground_of(sequence, foreground, preset, device, nets)
        train_instance(own, sequence, objects, preset, device, nets / sequence.name, resume=True)
    _wait_for_all()
    refiner = load_refiner(preset, device)
    for sequence in _my_share(todo):
        _segment(sequence, foreground, refiner, preset, device, folder)
    _wait_for_all()

    return folder.result(sequences)


def default_train_sequences(root: Path, exclude: list[Sequence]) -> list[Sequence]:
    """The train set of a DAVIS root (2017, else 2016) without the sequences under test; [] if it has none."""
    names = {sequence.name for sequence in exclude}
    for year in ("2017", "2016"):
        if (root / "ImageSets" / year / "train.txt").is_file():
            return [sequence for sequence in load_davis(root, year, "train") if sequence.name not in names]
    return []


def load_refiner(preset: Preset, device: str) -> torch.nn.Module:
    """The SPN that the preset names."""
    try:
        return spn.SPNRefiner.from_pretrained(preset.refiner).to(device).eval()
    except ValueError as error:
        raise PipelineError(f"no SPN of that name ({error}): train one with 'spn-vos train spn'") from error


# --- nets ---------------------------------------------------------------------------------------------------


def _shared_foreground(
    train_sequences: list[Sequence], sequences: list[Sequence], preset: Preset, device: str, nets: Path
) -> ForegroundNet:
    """The foreground net that all sequences share."""
    if train_sequences:
        net = train_foreground(train_sequences, preset, device, nets, resume=True)
    else:
        net = initial_net(preset).to(device, memory_format=memory_format(device, preset.precision))
    if preset.joint:
        net = finetune_foreground(
            net, sequences, preset, device, nets / "first-frames.pt", resume=True, distributed=True
        )
    return net.eval()


def _foreground_of(
    sequence: Sequence, shared: ForegroundNet, preset: Preset, device: str, nets: Path
) -> ForegroundNet:
    """The sequence's own foreground net, or the shared one where that knows all first frames."""
    if preset.joint:
        return shared
    checkpoint = nets / sequence.name / "foreground.pt"
    return finetune_foreground(shared, [sequence], preset, device, checkpoint, resume=True)


# --- frames -------------------------------------------------------------------------------------------------


def _segment(
    sequence: Sequence,
    foreground: ForegroundNet,
    refiner: torch.nn.Module,
    preset: Preset,
    device: str,
    folder: RunFolder,
) -> None:
    """Write the sequence's labels after every stage, last the file that marks it as done."""
    ids = list(sequence.object_ids)
    first = sequence.read_mask(0)
    craf = ConnectedRegionFilter(np.stack([first == k for k in ids]))
    clock = _Clock(device)
    folder.write_labels(sequence, 0, dict.fromkeys(STAGES, first))
    nets = _nets_of(sequence, foreground, preset, device, folder.nets)
    for t, scores, refined in _score_maps(sequence, *nets, refiner, preset, device, clock):
        with clock(CRAF):
            filtered = torch.from_numpy(craf.step(refined.cpu().numpy()))

        labels = {REPEATED: first}
        for stage, maps in ((INSTANCE, scores), (SPN, refined), (CRAF, filtered)):
            labels[stage] = labels_from_scores(maps, ids, preset.score_threshold).cpu().numpy()
        folder.write_labels(sequence, t, labels)
    clock.seconds[INSTANCE] += clock.seconds[FOREGROUND]
    folder.finish(sequence, clock.seconds)


def _nets_of(
    sequence: Sequence, foreground: ForegroundNet, preset: Preset, device: str, nets: Path
) -> tuple[ForegroundNet, list]:
    foreground = _foreground_of(sequence, foreground, preset, device, nets)
    instances = [
        train_instance(foreground, sequence, objects, preset, device, nets / sequence.name, resume=True)
        for objects in instance_jobs(sequence, preset)
    ]
    return foreground, instances


def _score_maps(
    sequence: Sequence,
    foreground: ForegroundNet,
    instances: list,
    refiner: torch.nn.Module,
    preset: Preset,
    device: str,
    clock: _Clock,
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Of every frame but the first: its number, the nets' scores (K, H, W) and what the SPN makes of them."""
    for t in tqdm(range(1, len(sequence)), desc=f"{sequence.name} frames"):
        small = working_image(sequence, t, preset.height).to(device)
        frame = torch.from_numpy(np.array(sequence.read_frame(t))).to(device).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            with clock(FOREGROUND), autocast(device, preset.precision):
                inside = foreground_mask(foreground, small, preset.foreground_threshold, preset.flip_test)
            with clock(INSTANCE), autocast(device, preset.precision):
                scores = object_scores(instances, inside, small, preset.flip_test)
                scores = resize_scores(scores, frame.shape[1:])
            with clock(SPN):
                refined = refiner(frame[None], scores[None])[0]
        yield t, scores, refined


def refined_scores(
    out: Path, sequence: Sequence, preset: Preset, device: str = "cpu"
) -> Iterator[tuple[int, np.ndarray]]:
    """The scores that CRAF was given in a run that is done, computed once more from its nets.

    Yields:
        (t, scores): the number of every frame but the first, float32 (K, H, W).
    """
    folder = RunFolder(out)
    foreground = _shared_foreground([], [sequence], preset, device, folder.nets)
    nets = _nets_of(sequence, foreground, preset, device, folder.nets)
    refiner, clock = load_refiner(preset, device), _Clock(device)
    for t, _, refined in _score_maps(sequence, *nets, refiner, preset, device, clock):
        yield t, refined.cpu().numpy()


# --- time and ranks -------------------------------------------------------------------------------------


class _Clock:
    """``with clock(stage):`` adds up the seconds of each stage."""

    def __init__(self, device: str) -> None:
        self.seconds = dict.fromkeys((FOREGROUND, *STAGES), 0.0)
        # A GPU returns before it is done.
        self.finish: Callable[[], None] = (
            torch.cuda.synchronize if device.startswith("cuda") else lambda: None
        )

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self.finish()
        start = time.perf_counter()
        yield
        self.finish()
        self.seconds[stage] += time.perf_counter() - start


def _my_share(work: list) -> list:
    rank, world = process_rank()
    return work[rank::world]


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()
