"""The whole pipeline: sequences in, label maps after every stage and their scores out."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from vos_pipeline.files import replacing
from vos_pipeline.images import write_labels
from vos_pipeline.instances import (
    foreground_mask,
    instance_jobs,
    labels_from_scores,
    object_scores,
    resize_scores,
    train_instance,
)
from vos_pipeline.metrics import Evaluation, score_sequence
from vos_pipeline.model import ForegroundNet
from vos_pipeline.presets import Preset, get_preset
from vos_pipeline.train import (
    autocast,
    finetune_foreground,
    initial_net,
    join_process_group,
    memory_format,
    process_rank,
    train_foreground,
)

REPEATED, INSTANCE, SPN, CRAF = STAGES = ("first mask repeated", "instance nets", "+ SPN", "+ CRAF")
FOREGROUND = "foreground net"  # the first part of INSTANCE, timed on its own as well
FOLDERS = {REPEATED: "first-mask", INSTANCE: "instance", SPN: "spn", CRAF: "craf"}


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    ``label_dirs[stage]`` holds <sequence>/<frame>.png; ``seconds[stage]`` is what that stage alone took, a
    frame and object (``seconds[FOREGROUND]`` is the foreground net's part of the nets' time);
    ``evaluations[stage]`` scores the sequences that have all masks, None if there are none.
    """

    label_dirs: dict[str, Path]
    seconds: dict[str, float]
    evaluations: dict[str, Evaluation | None]
    stages: tuple[str, ...] = STAGES

    def table(self) -> list[tuple[str, float, float, float, float]]:
        """Rows (stage, J, F, J&F, seconds a frame and object); NaN where there is nothing to compare with."""
        rows = []
        for stage in self.stages:
            evaluation = self.evaluations[stage]
            means = evaluation.summary() if evaluation else {}
            scores = (means.get(name, math.nan) for name in ("J-Mean", "F-Mean", "J&F-Mean"))
            rows.append((stage, *scores, self.seconds[stage]))
        return rows


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
    preset, out = get_preset(preset), Path(out)
    if not sequences:
        raise PipelineError("no sequence to segment: name at least one")
    if train_sequences is None:
        train_sequences = default_train_sequences(Path(data_root), exclude=sequences)
    device = join_process_group(device)
    if process_rank()[0] == 0:
        _open_run(out, preset, train_sequences, sequences, resume)
    _wait_for_all()

    # What is there belongs to this run now: every stage goes on from it.
    nets = out / "nets"
    foreground = _shared_foreground(train_sequences, sequences, preset, device, nets)
    todo = [sequence for sequence in sequences if not _seconds_file(out, sequence).exists()]
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
        _segment(sequence, foreground, refiner, preset, device, out)
    _wait_for_all()

    label_dirs = {stage: out / "labels" / folder for stage, folder in FOLDERS.items()}
    scored = [sequence for sequence in sequences if sequence.has_all_masks and len(sequence) > 2]
    return RunResult(label_dirs, _mean_seconds(out, sequences), _evaluate(scored, label_dirs))


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
    out: Path,
) -> None:
    """Write the sequence's labels after every stage, last the file that marks it as done."""
    ids = list(sequence.object_ids)
    first = sequence.read_mask(0)
    craf = ConnectedRegionFilter(np.stack([first == k for k in ids]))
    clock = _Clock(device)
    _write_stages(out, sequence, 0, dict.fromkeys(STAGES, first))
    nets = _nets_of(sequence, foreground, preset, device, out / "nets")
    for t, scores, refined in _score_maps(sequence, *nets, refiner, preset, device, clock):
        with clock(CRAF):
            filtered = torch.from_numpy(craf.step(refined.cpu().numpy()))

        labels = {REPEATED: first}
        for stage, maps in ((INSTANCE, scores), (SPN, refined), (CRAF, filtered)):
            labels[stage] = labels_from_scores(maps, ids, preset.score_threshold).cpu().numpy()
        _write_stages(out, sequence, t, labels)
    clock.seconds[INSTANCE] += clock.seconds[FOREGROUND]
    _write_json(
        _seconds_file(out, sequence),
        {"frames": len(sequence) - 1, "objects": len(ids), "seconds": clock.seconds},
    )


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
    foreground = _shared_foreground([], [sequence], preset, device, out / "nets")
    nets = _nets_of(sequence, foreground, preset, device, out / "nets")
    refiner, clock = load_refiner(preset, device), _Clock(device)
    for t, _, refined in _score_maps(sequence, *nets, refiner, preset, device, clock):
        yield t, refined.cpu().numpy()


# --- files --------------------------------------------------------------------------------------------------


def _open_run(
    out: Path, preset: Preset, train_sequences: list[Sequence], sequences: list[Sequence], resume: bool
) -> None:
    """Note what this run is, or check that the one to resume is the same; a fresh one forgets the last."""
    shared = sorted(sequence.name for sequence in sequences) if preset.joint else []
    identity = {
        "preset": json.loads(json.dumps(asdict(preset))),
        "train": sorted(sequence.name for sequence in train_sequences),
        "first frames": shared,
    }
    note = out / "run.json"
    if resume and note.exists():
        if json.loads(note.read_text()) != identity:
            raise PipelineError(
                f"{out} holds a run with other constants or training data: "
                "give another --out, or leave out --resume"
            )
        return
    if not resume:
        for folder in ("nets", "seconds"):
            shutil.rmtree(out / folder, ignore_errors=True)
    _write_json(note, identity)


def _write_stages(out: Path, sequence: Sequence, t: int, labels: dict[str, np.ndarray]) -> None:
    for stage, folder in FOLDERS.items():
        write_labels(
            out / "labels" / folder / sequence.name / f"{sequence.frame_paths[t].stem}.png", labels[stage]
        )


def _seconds_file(out: Path, sequence: Sequence) -> Path:
    return out / "seconds" / f"{sequence.name}.json"


def _mean_seconds(out: Path, sequences: list[Sequence]) -> dict[str, float]:
    """Means over frames and objects."""
    files = [json.loads(_seconds_file(out, sequence).read_text()) for sequence in sequences]
    count = max(1, sum(file["frames"] * file["objects"] for file in files))
    return {part: sum(file["seconds"][part] for file in files) / count for part in (FOREGROUND, *STAGES)}


def _write_json(path: Path, value: dict) -> None:
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")


# --- scores and seconds -------------------------------------------------------------------------------------


def _evaluate(scored: list[Sequence], label_dirs: dict[str, Path]) -> dict[str, Evaluation | None]:
    if not scored:
        return dict.fromkeys(STAGES)
    evaluations = {}
    for stage, folder in label_dirs.items():
        objects = {}
        for sequence in scored:
            objects.update(score_sequence(sequence, folder))
        evaluations[stage] = Evaluation(objects)
    return evaluations


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
