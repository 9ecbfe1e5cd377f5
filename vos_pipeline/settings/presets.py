"""Every constant of the pipeline in one place: ``paper``, ``small`` (a CPU) and ``demo`` (minutes)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vos_pipeline.errors import PipelineError
from vos_pipeline.settings.augmentation import Affine, Augmentation
from vos_pipeline.settings.craf import CRAFParameters
from vos_pipeline.settings.flow_filter import FlowFilterParameters
from vos_pipeline.settings.schedule import PRECISIONS, NetSchedule, check_choice

MODELS = ("per-video", "per-object")  # section 5.2, table 1
FILTERS = ("none", "craf", "flow")  # over time; section 4.2 has the second
TABLES = ("models", "ablation", "timing", "challenge")  # of the paper: 1 to 4


@dataclass(frozen=True)
class Preset:
    """The constants of one pipeline.

    ``height`` is the height at which the nets see a frame (None: the frame's own); scores are brought back
    to the frame's size before the SPN.  ``joint`` fine-tunes one foreground net on the first frames of all
    test sequences in place of one net per sequence.  ``model`` says what tells the K objects of a video apart
    (paper, section 5.2): "per-object", K nets of two channels, or "per-video", one net of K + 1 channels.
    ``refiner`` is None where the user has to choose one.
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
    pretrained: bool = True  # section 3.1: features start from ImageNet weights, where the backbone has any
    foreground_threshold: float = 0.5  # section 3.2: scores outside the foreground are zero
    score_threshold: float = 0.5  # section 5.2: background where no object's score reaches it
    flip_test: bool = False  # average the scores of a frame and its mirror image
    refiner: str | None = "lite"  # a name or a file, for spn.SPNRefiner.from_pretrained
    filter: str = (
        "flow"  # what filters the scores over time, last: "none", "craf" (section 4.2) or "flow" (ours)
    )
    craf: CRAFParameters = field(default_factory=CRAFParameters)
    flow: FlowFilterParameters = field(default_factory=FlowFilterParameters)
    precision: str = "float32"  # of the nets' arithmetic; weights, loss and updates are float32 throughout
    compile: bool = False  # torch.compile for training: pays off after some hundred steps
    seed: int = 0

    @property
    def chosen_refiner(self) -> str:
        """``refiner``; PipelineError where none is chosen."""
        if self.refiner is None:
            raise PipelineError(
                f"preset {self.name} needs an SPN: give --refiner FILE, the spn.safetensors that "
                "'spn-vos train spn --preset paper --voc VOC --out SPN' writes, or --refiner lite, which is shipped"
            )
        return self.refiner

    def shortened(self, factor: int) -> Preset:
        """The preset with every training divided by ``factor``, at least one step each: to try it out."""

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


# Section 3.3 makes 1000 samples of a frame by shift, rotation and flip. It gives no ranges: those of the
# authors' script are +-10 % of the frame, +-5 degrees, +-5 % of the size, one in two mirrored.
_PAPER_AUGMENTATION = Augmentation(Affine(shift=0.1, rotation=5.0, scale=0.05, flip=0.5), samples=1000)

# Section 3.3: stochastic gradient descent, one image at a time, rates and numbers of steps. Section 3.1, eq. (1): the
# loss, summed over the pixels. Momentum and weight decay are not given: docs/differences.md.
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
    model="per-object",  # section 5.2, the better of the two in table 1
    refiner=None,  # section 4.1: what `train spn --preset paper` leaves behind
    filter="craf",
    # Step 2 as it is printed. The authors' script looks at the labels of the previous frame.
    craf=CRAFParameters(mutual_cover="both", previous="labelled"),
)

# The small net starts from random weights: it needs larger steps, a milder balance (it can not make up for what
# eq. (1) overstates) and transforms that show it objects at the sizes and places they will have later. Once it
# knows what objects are, smaller steps keep more of that.
_WIDE = Affine(shift=0.15, rotation=15.0, scale=0.5, flip=0.5, bend=0.03)
_FREE = replace(_WIDE, shift=0.3, scale=1.5)
_SMALL_SCHEDULE = NetSchedule(
    steps=2000,
    batch=4,
    learning_rate=3e-3,
    warmup=50,  # the first steps of AdamW know no second moments yet
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
    """The preset of that name (a Preset passes through); PipelineError names the known ones."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise PipelineError(f"unknown preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]
