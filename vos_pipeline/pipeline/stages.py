"""The whole pipeline: sequences in, label maps after every stage and their scores out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from vos_pipeline.data import Sequence, has_train_set, load_train_set, without
from vos_pipeline.errors import PipelineError, warn
from vos_pipeline.output_folder import OutputFolder
from vos_pipeline.pipeline.run_folder import RunFolder, RunResult
from vos_pipeline.pipeline.run_nets import RunNets
from vos_pipeline.pipeline.segmenter import Segmenter, VideoNets
from vos_pipeline.pipeline.stage_names import REPEATED, SPN, STAGES, TUNING
from vos_pipeline.refiner import load_refiner
from vos_pipeline.settings import Preset, get_preset
from vos_pipeline.training import Compute, join_process_group, my_share, process_rank, wait_for_all


def run(
    data_root: Path,
    sequences: list[Sequence],
    out: Path,
    *,
    preset: str | Preset = "small",
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
    train_sequences: list[Sequence] | None = None,
    copy_nets: Callable[[Path], None] | None = None,
) -> RunResult:
    """Segment the sequences: nets, scores, SPN, CRAF and the flow filter, labels after each.

    Everything lands in ``out``: ``labels/<stage>/<sequence>/<frame>.png``, ``nets/`` and ``seconds/``.

    Under ``torchrun`` the foreground net is trained by as many ranks as share its batch evenly (by the first one alone
    where the batch is 1); then each rank takes its share of the objects to train nets for, and of the sequences to
    segment.  From one foreground net, any number of ranks gives the labels that one process with as many threads as
    a rank does, bit for bit. A foreground net that several ranks trained differs by the rounding of a sum over ranks.

    Args:
        data_root: a DAVIS root; its train set is what the foreground net is trained on unless given.
        sequences: what to segment; the first mask of each is given.
        out: folder of the results.
        preset: name or constants.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for CUDA where there is a GPU.
        resume: go on from what an earlier run with the same preset and the same data left in ``out``.
        overwrite: remove the files that an earlier run left in ``out``, and no others.
        train_sequences: for the foreground net; an empty list leaves it the first frames alone.
        copy_nets: called with the folder of nets before any is trained, to put some there.

    Raises:
        PipelineError: no sequence, an unknown preset, ``out`` holds a run or other files and neither ``resume`` nor
            ``overwrite`` is given, or ``resume`` in a folder of another run.
    """
    preset, folder = get_preset(preset), RunFolder(Path(out))
    if not sequences:
        raise PipelineError("no sequence to segment: name at least one")
    if train_sequences is None:
        train_sequences = default_train_sequences(Path(data_root), exclude=sequences)
    device = join_process_group(device)
    # Before hours of training, which a damaged file must not follow.
    refiner = load_refiner(preset.chosen_refiner, device)
    if process_rank()[0] == 0:
        inputs = [path for sequence in sequences for path in sequence.files] + [Path(preset.chosen_refiner)]
        OutputFolder(folder.path).claim(resume=resume, overwrite=overwrite, inputs=inputs)
        folder.open(preset, train_sequences, sequences)
        if copy_nets:
            copy_nets(folder.nets)
    wait_for_all()

    # What is there belongs to this run now: every stage goes on from it.
    nets = nets_of(folder, preset, device)
    todo = [sequence for sequence in sequences if not folder.is_done(sequence)]
    wait_for_all()  # before anyone finishes a sequence that another has not looked for yet
    if todo:
        nets.train_shared(train_sequences, sequences)
        nets.train_own(todo)
    for sequence in my_share(todo):
        _segment(sequence, nets, refiner, folder, nets.tuning_seconds(sequence, among=len(sequences)))
    wait_for_all()

    return folder.result(sequences, preset)


def nets_of(folder: RunFolder, preset: Preset, device: str) -> RunNets:
    """The nets of a run, for a device."""
    return RunNets(folder.nets, preset, Compute(device, preset.precision, preset.compile))


def default_train_sequences(root: Path, exclude: list[Sequence]) -> list[Sequence]:
    """The train set of a DAVIS root (2017, else 2016) without the sequences under test; [] if it has none."""
    train = load_train_set(root) if has_train_set(root) else []
    if not train and process_rank()[0] == 0:
        warn(f"{root}: has no train set, so the foreground net learns from first frames alone")
    return without(train, exclude)


def refined_scores(
    out: Path, sequence: Sequence, preset: Preset, device: str = "cpu"
) -> Iterator[tuple[int, np.ndarray]]:
    """The scores that the filters were given in a run that is done, computed once more from its nets.

    Yields:
        (t, scores): the number of every frame but the first, float32 (K, H, W).
    """
    nets = nets_of(RunFolder(out), preset, device)
    segmenter = _segmenter(sequence, nets, load_refiner(preset.chosen_refiner, device))
    for t in range(1, len(sequence)):
        yield t, segmenter.step_scores(sequence.read_frame(t))[SPN]


def _segment(
    sequence: Sequence, nets: RunNets, refiner: nn.Module, folder: RunFolder, tuning_seconds: float
) -> None:
    """Write the sequence's labels after every stage, last the file that marks it as done."""
    first = sequence.read_mask(0)
    segmenter = _segmenter(sequence, nets, refiner)
    folder.write_labels(sequence, 0, dict.fromkeys(STAGES, first))
    for t in tqdm(range(1, len(sequence)), desc=f"{sequence.name} frames"):
        scores = segmenter.step_scores(sequence.read_frame(t))
        labels = {stage: segmenter.labels(maps) for stage, maps in scores.items()}
        folder.write_labels(sequence, t, {REPEATED: first, **labels})
    folder.finish(sequence, {REPEATED: 0.0, **segmenter.seconds, TUNING: tuning_seconds})


def _segmenter(sequence: Sequence, nets: RunNets, refiner: nn.Module) -> Segmenter:
    foreground = nets.foreground(sequence)
    own = VideoNets(foreground, nets.instances(sequence, foreground), refiner)
    return Segmenter(
        sequence.read_frame(0), sequence.read_mask(0), nets.preset, nets.compute.device, nets=own
    )
