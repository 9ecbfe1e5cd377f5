"""Presets, the constants of the pipeline: ``paper``, ``small`` (for a CPU) and ``demo`` (runs in minutes)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings.augmentation import Affine, Augmentation
from vos_pipeline.settings.craf import CRAFParameters
from vos_pipeline.settings.flow_filter import FlowFilterParameters
from vos_pipeline.settings.schedule import PRECISIONS, NetSchedule, check_choice

MODELS = ("per-video", "per-object")  # paper, section 5.2, table 1
FILTERS = ("none", "craf", "flow")  # temporal filters; "craf" is section 4.2 of the paper
TABLES = ("models", "ablation", "timing", "challenge")  # tables 1 to 4 of the paper


@dataclass(frozen=True)
class Preset:
    """The constants of one pipeline.

    To change a preset, use ``dataclasses.replace(vos_pipeline.settings.PRESETS["small"], filter="craf")``.

    Args:
        name: name of the preset.
        backbone: network that computes the features, "small" or "resnet101".
        height: height of the frames that the nets process; None is full size. Scores are resized to the frame size
            before the SPN.
        foreground: training schedule of the foreground net.
        foreground_augmentation: its data augmentation.
        first_frames: training schedule for tuning the foreground net on first frames.
        first_frames_augmentation: its data augmentation.
        instance: training schedule of the instance nets.
        instance_augmentation: its data augmentation.
        joint: whether one foreground net is tuned on the first frames of all test sequences, instead of one net per
            sequence.
        model: how the K objects of a video are distinguished (paper, section 5.2): "per-object", K nets with two
            channels, or "per-video", one net with K + 1 channels.
        pretrained: whether to start from ImageNet weights if the backbone has any.
        foreground_threshold: scores outside the foreground are zero; this is the threshold of the foreground.
        score_threshold: a pixel is background if no score reaches this value.
        flip_test: whether to average the scores of a frame and its mirror image.
        refiner: name or file for :meth:`spn.SPNRefiner.from_pretrained`; None if the user must choose one.
        filter: temporal filter, the last stage: "none", "craf" or "flow".
        craf: constants of CRAF.
        flow: constants of the flow filter.
        precision: precision of the nets. Weights, loss and updates are always float32.
        compile: whether to use torch.compile for training, which is worthwhile from a few hundred steps.
        seed: seed of the random numbers.
    """

    name: str
    backbone: str
    height: int | None
    foreground: NetSchedule
    foreground_augmentation: Augmentation
    first_frames: NetSchedule
    first_frames_augmentation: Augmentation
    instance: NetSchedule
    instance_augmentation: Augmentation
    joint: bool = True
    model: str = "per-object"
    pretrained: bool = True  # section 3.1: start from ImageNet weights if the backbone has any
    foreground_threshold: float = 0.5  # section 3.2: scores outside the foreground are zero
    score_threshold: float = 0.5  # section 5.2: background if no score reaches it
    flip_test: bool = False  # average the scores of a frame and its mirror image
    refiner: str | None = "lite"  # a name or a file, for spn.SPNRefiner.from_pretrained
    filter: str = "flow"  # temporal filter, the last stage: "none", "craf" (section 4.2) or "flow" (ours)
    craf: CRAFParameters = field(default_factory=CRAFParameters)
    flow: FlowFilterParameters = field(default_factory=FlowFilterParameters)
    precision: str = "float32"  # precision of the nets; weights, loss and updates are always float32
    compile: bool = False  # torch.compile for training; worthwhile from a few hundred steps
    seed: int = 0

    @property
    def chosen_refiner(self) -> str:
        """``refiner``.

        Raises:
            PipelineError: no refiner is chosen.
        """
        if self.refiner is None:
            raise PipelineError(
                f"preset {self.name} needs an SPN: give --refiner FILE, the spn.safetensors written by "
                "'spn-vos train spn --preset paper --voc VOC --out SPN', or --refiner lite, which is included"
            )
        return self.refiner

    def shortened(self, factor: int) -> Preset:
        """Return the preset for a quick trial: the training steps of each net divided by ``factor``, rounded up."""

        def divided(schedule: NetSchedule) -> NetSchedule:
            steps, halve_every = (-(-number // factor) for number in (schedule.steps, schedule.halve_every))
            return replace(schedule, steps=steps, halve_every=halve_every)

        return replace(
            self,
            name=self.name if factor == 1 else f"{self.name} with 1/{factor} of its steps",
            foreground=divided(self.foreground),
            first_frames=divided(self.first_frames),
            instance=divided(self.instance),
        )

    def __post_init__(self) -> None:
        check_choice("model", self.model, MODELS)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("filter", self.filter, FILTERS)


# Section 3.3 makes 1000 samples of a frame by shift, rotation and flip, without ranges. The authors' script uses
# +-10 % of the frame, +-5 degrees, +-5 % of the size, and mirrors every second sample on average.
_PAPER_AUGMENTATION = Augmentation(Affine(shift=0.1, rotation=5.0, scale=0.05, flip=0.5), samples=1000)

# Section 3.3: stochastic gradient descent with batch size 1, learning rates and numbers of steps. Section 3.1, eq. (1):
# the loss, summed over the pixels. The paper does not give momentum and weight decay: see docs/differences.md.
_PAPER_SCHEDULE = NetSchedule(
    steps=30_000,
    batch=1,
    learning_rate=1e-8,
    optimizer="sgd",
    momentum=0.9,
    decay="constant",
    weight_decay=5e-4,
    reduction="sum",
    balance=1.0,
    average=0.0,
)

_PAPER = Preset(
    name="paper",
    backbone="resnet101",  # section 3.1
    height=None,  # 480 x 854, the size of DAVIS frames
    foreground=replace(_PAPER_SCHEDULE, steps=100_000),
    foreground_augmentation=_PAPER_AUGMENTATION,
    first_frames=_PAPER_SCHEDULE,
    first_frames_augmentation=_PAPER_AUGMENTATION,
    instance=replace(_PAPER_SCHEDULE, decay="halve", halve_every=10_000),
    instance_augmentation=_PAPER_AUGMENTATION,
    joint=True,  # section 3.2: the first frames of all test videos
    model="per-object",  # section 5.2, the better model in table 1
    refiner=None,  # section 4.1: the output of `train spn --preset paper`
    filter="craf",
    # Step 2 as printed in the paper. The authors' script uses the labels of the previous frame.
    craf=CRAFParameters(mutual_cover="both", previous="labelled"),
)

# The small net starts from random weights. It needs larger learning rates, a weaker balance (it cannot compensate for
# the overweighted class of eq. (1)) and transforms that move objects to their later sizes and positions. After it has
# learned to recognise objects, smaller learning rates preserve more of what it learned.
_WIDE = Affine(shift=0.15, rotation=15.0, scale=0.5, flip=0.5, bend=0.03)
_FREE = replace(_WIDE, shift=0.3, scale=1.5)
_SMALL_SCHEDULE = NetSchedule(
    steps=2000,
    batch=4,
    learning_rate=3e-3,
    warmup=50,  # AdamW has no estimate of the second moments in the first steps
    balance=0.5,
    average=0.98,
)

_SMALL = Preset(
    name="small",
    backbone="small",
    height=240,
    foreground=replace(_SMALL_SCHEDULE, average=0.99),
    foreground_augmentation=Augmentation(_WIDE, color=0.3),
    first_frames=replace(_SMALL_SCHEDULE, steps=300, learning_rate=1.5e-3),
    first_frames_augmentation=Augmentation(_WIDE, color=0.2, compose=0.5, object=_FREE, near=0.8),
    instance=replace(_SMALL_SCHEDULE, steps=600, learning_rate=2e-3, head_factor=5.0),
    instance_augmentation=Augmentation(_WIDE, color=0.15, compose=0.7, object=_FREE, near=0.8, drop=0.15),
    joint=False,
    model="per-video",
    flip_test=True,
)

_DEMO = replace(
    _SMALL,
    name="demo",
    foreground=replace(_SMALL.foreground, steps=150),
    first_frames=replace(_SMALL.first_frames, steps=60),
    instance=replace(_SMALL.instance, steps=220),
    flip_test=False,
)

PRESETS = {preset.name: preset for preset in (_PAPER, _SMALL, _DEMO)}


def get_preset(preset: str | Preset) -> Preset:
    """Return the preset with this name; a ``Preset`` is returned unchanged.

    Raises:
        PipelineError: no preset has this name.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise PipelineError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]
