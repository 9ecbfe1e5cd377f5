"""The constants of a refiner's training. How the weights that ship with spn were made: docs/refiner.md."""

from __future__ import annotations

from dataclasses import dataclass

from vos_pipeline.settings.schedule import Schedule

GUIDANCES = ("lite", "lite-image", "vgg16")  # the first sees the coarse mask too
FORMS = ("embedded", "direct")
SMALLEST_TILE = 256  # of spn.SPNRefiner, in pixels


@dataclass(frozen=True)
class SPNTraining:
    """One training of a refiner."""

    guidance: str = "lite"  # one of GUIDANCES
    form: str = "embedded"  # one of FORMS
    steps: int = 9_000
    batch: int = 4  # of all processes together
    size: int = 160  # side of the crops in pixels
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.998  # decay of the moving average of the weights, which is what is kept
    boundary_weight: float = 3.0  # extra weight of pixels near an outline; 0 is the paper's plain loss
    precision: str = "float32"  # or "bfloat16", "float16": autocast, twice as fast where the processor has it
    seed: int = 0
    checkpoint_every: int = 200

    @property
    def schedule(self) -> Schedule:
        """AdamW, a warm-up over 100 steps, then a cosine to 1 % of the rate."""
        return Schedule(
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=100,
            floor=0.01,
            clip=1.0,
            average=self.average,
            checkpoint_every=self.checkpoint_every,
        )
