"""Constants for training a refiner. docs/refiner_training.md describes how the shipped weights were trained."""

from __future__ import annotations

from dataclasses import dataclass

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings.schedule import PRECISIONS, Schedule, check_choice

GUIDANCES = ("lite", "lite-image", "vgg16")  # "lite" also sees the coarse mask
FORMS = ("embedded", "direct")
SMALLEST_TILE = 256  # smallest tile of spn.SPNRefiner, in pixels


@dataclass(frozen=True)
class SPNTraining(Schedule):
    """Training of a refiner: network, samples, loss and schedule. The defaults are preset "lite".

    Raises:
        PipelineError: an unknown name, or ``convex`` without the direct form.
    """

    guidance: str = "lite"  # one of GUIDANCES
    form: str = "embedded"  # one of FORMS
    convex: bool = False  # for the direct form, see spn.SPNRefiner
    scratch_factor: float = (
        1.0  # learning-rate factor of the layers that start from random weights next to pretrained VGG-16
    )
    size: int = 160  # side of the crops in pixels
    boundary_weight: float = 3.0  # extra weight of pixels near a boundary; 0 is the plain loss of the paper
    precision: str = (
        "float32"  # or "bfloat16", "float16": autocast, twice as fast on processors that support it
    )
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
                f"convex (--convex) is for the direct form, got {self.form!r}: add --form direct, or omit --convex"
            )


_LITE = SPNTraining()

# Section 4.1 of the paper. Values that it leaves open are from the first author's public configuration.
_PAPER = SPNTraining(
    guidance="vgg16",  # section 4.1
    form="direct",  # section 4.1
    size=256,  # section 4.1
    boundary_weight=0.0,  # a plain two-class loss
    optimizer="sgd",  # from the configuration, like momentum, rate and decay
    momentum=0.9,
    learning_rate=1e-4,
    decay="poly",
    power=0.5,
    # Ours, because neither gives them: 8 x 50,000 samples are about 40 passes over the 10,600 images of VOC and SBD.
    batch=8,
    steps=50_000,
    weight_decay=5e-4,  # from the authors' other configurations
    # Ours: inputs reach 255 in Caffe's VGG-16 and about 2 in torchvision's. Features and gradients are therefore about
    # 50 times smaller here, and the rate of the configuration hardly changes the layers learned from scratch.
    scratch_factor=10.0,
    warmup=0,
    clip=None,
    average=0.0,
    checkpoint_every=500,
)

SPN_PRESETS = {"lite": _LITE, "paper": _PAPER}
