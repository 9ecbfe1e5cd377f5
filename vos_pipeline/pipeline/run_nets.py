"""The nets of a run. Each net is trained once, saved under ``nets/``, and loaded from there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vos_pipeline.data import Sequence
from vos_pipeline.nets import (
    ForegroundNet,
    initial_foreground,
    instance_checkpoint,
    instance_jobs,
    load_foreground,
    load_instance,
    train_foreground,
    train_instance,
    tune_foreground,
)
from vos_pipeline.settings import Preset
from vos_pipeline.training import (
    Compute,
    is_finished,
    my_share,
    ranks_for_batch,
    training_seconds,
    wait_for_all,
)

TRAINED, TUNED = "foreground.pt", "first-frames.pt"


@dataclass(frozen=True)
class RunNets:
    """The nets in one folder.

    ``foreground.pt`` is trained on the train set. With a joint preset, ``first-frames.pt`` is tuned on the first frames
    of all sequences. Otherwise one net per sequence is tuned, ``<sequence>/foreground.pt``. The nets of the objects are
    in ``<sequence>/`` in both cases.
    """

    folder: Path
    preset: Preset
    compute: Compute

    # --- training ---------------------------------------------------------------------------------------------

    def train_shared(self, train_sequences: list[Sequence], sequences: list[Sequence]) -> None:
        """Train the foreground nets that all sequences share, on as many ranks as divide the batch evenly."""
        preset, trained, tuned = self.preset, self._trained, self._tuned
        ranks = ranks_for_batch(preset.foreground.batch)
        if ranks and train_sequences and not is_finished(trained, preset.foreground):
            train_foreground(train_sequences, preset, trained, self.compute, resume=True, ranks=ranks)
        wait_for_all()  # until rank 0 has written the net
        ranks = ranks_for_batch(preset.first_frames.batch)
        if ranks and preset.joint and not is_finished(tuned, preset.first_frames):
            tune_foreground(self._base(), sequences, preset, tuned, self.compute, resume=True, ranks=ranks)
        wait_for_all()

    def train_own(self, sequences: list[Sequence]) -> None:
        """Train the nets of each sequence and object. Each rank trains a share of them."""
        if not self.preset.joint:
            for sequence in my_share(sequences):
                self._train_own_foreground(sequence)
            wait_for_all()
        jobs = [
            (sequence, objects) for sequence in sequences for objects in instance_jobs(sequence, self.preset)
        ]
        for sequence, objects in my_share(jobs):
            self._train_instance(sequence, objects)
        wait_for_all()

    def _train_own_foreground(self, sequence: Sequence) -> None:
        checkpoint = self._own(sequence)
        if not is_finished(checkpoint, self.preset.first_frames):
            tune_foreground(self._base(), [sequence], self.preset, checkpoint, self.compute, resume=True)

    def _train_instance(self, sequence: Sequence, objects: tuple[int, ...]) -> None:
        checkpoint = instance_checkpoint(self.folder / sequence.name, objects, self.preset)
        if not is_finished(checkpoint, self.preset.instance):
            foreground = self.foreground(sequence)
            train_instance(foreground, sequence, objects, self.preset, checkpoint, self.compute, resume=True)

    def tuning_seconds(self, sequence: Sequence, among: int) -> float:
        """Return the seconds spent tuning the nets of a sequence on first frames.

        The time of a net that ``among`` sequences share is divided by ``among``.
        """
        shared = (
            training_seconds(self._tuned) / among
            if self.preset.joint
            else training_seconds(self._own(sequence))
        )
        return shared + sum(map(training_seconds, self._instance_files(sequence)))

    # --- loading ----------------------------------------------------------------------------------------------

    def foreground(self, sequence: Sequence) -> ForegroundNet:
        """Load the foreground net of a sequence."""
        checkpoint = self._tuned if self.preset.joint else self._own(sequence)
        return load_foreground(checkpoint, self.preset, self.compute)

    def instances(self, sequence: Sequence, foreground: ForegroundNet) -> list[ForegroundNet]:
        """Load the nets of the objects, one per entry of :func:`vos_pipeline.nets.instance_jobs`."""
        jobs = zip(instance_jobs(sequence, self.preset), self._instance_files(sequence), strict=True)
        return [load_instance(foreground, objects, file, self.compute) for objects, file in jobs]

    def _base(self) -> ForegroundNet:
        """Return the net to tune on first frames: ``foreground.pt`` if it exists, else an untrained net."""
        if self._trained.exists():
            return load_foreground(self._trained, self.preset, self.compute)
        return self.compute.place(initial_foreground(self.preset)).eval()

    # --- files ------------------------------------------------------------------------------------------------

    @property
    def _trained(self) -> Path:
        return self.folder / TRAINED

    @property
    def _tuned(self) -> Path:
        return self.folder / TUNED

    def _own(self, sequence: Sequence) -> Path:
        return self.folder / sequence.name / TRAINED

    def _instance_files(self, sequence: Sequence) -> list[Path]:
        folder, jobs = self.folder / sequence.name, instance_jobs(sequence, self.preset)
        return [instance_checkpoint(folder, objects, self.preset) for objects in jobs]


def net_files(preset: Preset, sequences: list[Sequence]) -> Iterator[Path]:
    """Yield all files that the nets of a run may use, relative to the folder of nets."""
    yield from (Path(TRAINED), Path(TUNED))
    for sequence in sequences:
        yield Path(sequence.name, TRAINED)
        for objects in instance_jobs(sequence, preset):
            yield instance_checkpoint(Path(sequence.name), objects, preset)
