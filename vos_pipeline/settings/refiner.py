"""The constants of a refiner's training. How the weights that ship with spn were made: docs/refiner_training.md."""

from __future__ import annotations

from dataclasses import dataclass

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings.schedule import PRECISIONS, Schedule, check_choice

GUIDANCES = ("lite", "lite-image", "vgg16")  # the first sees the coarse mask too
FORMS = ("embedded", "direct")
SMALLEST_TILE = 256  # of spn.SPNRefiner, in pixels


@dataclass(frozen=True)
class SPNTraining(Schedule):
    """One training of a refiner: the refiner, its samples, its loss and its schedule. The defaults are "lite".

    Raises:
        PipelineError: a name is not known, or ``convex`` is set without the direct form.
    """

    guidance: str = "lite"  # one of GUIDANCES
    form: str = "embedded"  # one of FORMS
    convex: bool = False  # of the direct form, see spn.SPNRefiner
    scratch_factor: float = (
        1.0  # beside VGG-16's convolutions, what starts at random learns that many times as fast
    )
    size: int = 160  # side of the crops in pixels
    boundary_weight: float = 3.0  # extra weight of pixels near an outline; 0 is the paper's plain loss
    precision: str = "float32"  # or "bfloat16", "float16": autocast, twice as fast where the processor has it
    seed: int = 0
    steps: int = 9_000
    batch: int = 4
    learning_rate: float = 2e-3
    warmup: int = 100
    floor: float = 0.01
    clip: float | None = 1.0
    average: float = 0.998

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("guidance", self.guidance, GUIDANCES)
        check_choice("form", self.form, FORMS)
        check_choice("precision", self.precision, PRECISIONS)
        if self.convex and self.form != "direct":
            raise PipelineError(
                f"convex (--convex) is for the direct form, got {self.form!r}: add --form direct, or leave it out"
            )


_LITE = SPNTraining()

# Section 4.1 of the paper, and the first author's public configuration for what it leaves open.
_PAPER = SPNTraining(
    guidance="vgg16",  # section 4.1
    form="direct",  # section 4.1
    size=256,  # section 4.1
    boundary_weight=0.0,  # a plain loss of two classes
    optimizer="sgd",  # the configuration, like momentum, rate and decay
    momentum=0.9,
    learning_rate=1e-4,
    decay="poly",
    power=0.5,
    # Ours, since neither gives them: 8 x 50,000 samples are about 40 passes over the 10,600 pictures of VOC and SBD.
    batch=8,
    steps=50_000,
    weight_decay=5e-4,  # of the authors' other configurations
    # Ours: Caffe's VGG-16 sees values to 255, torchvision's to about 2, so features and with them gradients are some
    # 50 times smaller here, and the configuration's rate hardly moves what is learned from scratch.
    scratch_factor=10.0,
    warmup=0,
    clip=None,
    average=0.0,
    checkpoint_every=500,
)

SPN_PRESETS = {"lite": _LITE, "paper": _PAPER}
