"""Run the whole pipeline: from sequences to the labels and scores after every stage."""

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
    """Segment the sequences with nets, SPN, CRAF and the flow filter, and write the labels after each stage.

    All files are written to ``out``: ``labels/<stage>/<sequence>/<frame>.png``, ``nets/`` and ``seconds/``.

    Under ``torchrun``, as many ranks as divide the batch evenly train the foreground net (only the first rank if the
    batch size is 1). Then each rank trains the nets for a share of the objects, and segments a share of the sequences.
    Starting from the same foreground net, any number of ranks produces the same labels, bit for bit, as one process
    with as many threads as a rank. A foreground net trained by several ranks differs by the rounding of a sum over
    ranks.

    Args:
        data_root: DAVIS root. Its train set trains the foreground net unless ``train_sequences`` is given.
        sequences: sequences to segment, each with the mask of its first frame.
        out: folder for the results.
        preset: name of a preset, or its constants.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for CUDA if a GPU is available.
        resume: continue an earlier run with the same preset and data in ``out``.
        overwrite: delete the files of an earlier run in ``out``, and no others.
        train_sequences: sequences that train the foreground net. With an empty list, it learns only from first frames.
        copy_nets: called with the folder of nets before training, to copy existing nets into it.

    Raises:
        PipelineError: no sequence, an unknown preset, ``out`` contains a run or other files and neither ``resume`` nor
            ``overwrite`` is given, or ``resume`` in a folder of another run.
    """
    preset, folder = get_preset(preset), RunFolder(Path(out))
    if not sequences:
        raise PipelineError("no sequence to segment: give at least one")
    if train_sequences is None:
        train_sequences = default_train_sequences(Path(data_root), exclude=sequences)
    device = join_process_group(device)
    # Before hours of training, so that a damaged file fails at once.
    refiner = load_refiner(preset.chosen_refiner, device)
    if process_rank()[0] == 0:
        inputs = [path for sequence in sequences for path in sequence.files] + [Path(preset.chosen_refiner)]
        OutputFolder(folder.path).claim(resume=resume, overwrite=overwrite, inputs=inputs)
        folder.open(preset, train_sequences, sequences)
        if copy_nets:
            copy_nets(folder.nets)
    wait_for_all()

    # All files in the folder belong to this run now, and every stage continues from them.
    nets = nets_of(folder, preset, device)
    todo = [sequence for sequence in sequences if not folder.is_done(sequence)]
    wait_for_all()  # before a rank finishes a sequence that another rank has not checked yet
    if todo:
        nets.train_shared(train_sequences, sequences)
        nets.train_own(todo)
    for sequence in my_share(todo):
        _segment(sequence, nets, refiner, folder, nets.tuning_seconds(sequence, among=len(sequences)))
    wait_for_all()

    return folder.result(sequences, preset)


def nets_of(folder: RunFolder, preset: Preset, device: str) -> RunNets:
    """Return the nets of a run on a device."""
    return RunNets(folder.nets, preset, Compute(device, preset.precision, preset.compile))


def default_train_sequences(root: Path, exclude: list[Sequence]) -> list[Sequence]:
    """Return the train set of a DAVIS root (2017, else 2016) without ``exclude``; [] if it has no train set."""
    train = load_train_set(root) if has_train_set(root) else []
    if not train and process_rank()[0] == 0:
        warn(f"{root}: has no train set, so the foreground net learns only from first frames")
    return without(train, exclude)


def refined_scores(
    out: Path, sequence: Sequence, preset: Preset, device: str = "cpu"
) -> Iterator[tuple[int, np.ndarray]]:
    """Recompute the scores after the SPN, the input of the filters, from the nets of a finished run.

    Yields:
        (t, scores) for every frame except the first: the frame number and float32 (K, H, W).
    """
    nets = nets_of(RunFolder(out), preset, device)
    segmenter = _segmenter(sequence, nets, load_refiner(preset.chosen_refiner, device))
    for t in range(1, len(sequence)):
        yield t, segmenter.step_scores(sequence.read_frame(t))[SPN]


def _segment(
    sequence: Sequence, nets: RunNets, refiner: nn.Module, folder: RunFolder, tuning_seconds: float
) -> None:
    """Write the labels of a sequence after every stage, then the file that marks the sequence as done."""
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
