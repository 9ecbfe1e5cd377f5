"""On a CPU, a refiner in evaluation mode processes each object in a window around it."""

import pytest
import torch
from refiner_cases import small
from torch.nn.utils import prune

from spn._lite_windows import features_in_windows
from spn._windows import Window, windows_of_objects
from spn.guidance import LiteGuidance
from spn.refiner import SPNRefiner

SIZE = (150, 218)  # padded to 160 x 224
SEES = "embedded, guidance sees the mask"
WINDOWED = ("embedded", SEES)


def soft_box(top, bottom, left, right, size=SIZE):
    """Return a mask that is 1 inside the box and falls to 0 at 8 pixels outside."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    outside = torch.stack([top - y, y - bottom + 1, left - x, x - right + 1]).amax(0)
    return (1 - outside / 8).clamp(0, 1)


MASKS = {
    "inside": soft_box(60, 80, 90, 120),
    "in a corner": soft_box(0, 20, 0, 30),
    "at the far corner": soft_box(130, 150, 200, 218),
    "hard": (soft_box(60, 80, 90, 120) == 1).float(),
    "blobs": torch.maximum(soft_box(20, 40, 20, 40), soft_box(60, 70, 70, 75)),
    "faint": 0.3 * soft_box(60, 80, 90, 120),
}


def inputs(*masks, n=1):
    torch.manual_seed(2)
    return torch.rand(n, 3, *SIZE), torch.stack(masks or tuple(MASKS.values())).repeat(n, 1, 1, 1)


def whole_frames(refiner, *arguments, **options):
    refiner.windows = False
    try:
        return refiner(*arguments, **options)
    finally:
        refiner.windows = True


@pytest.fixture
def windowed(monkeypatch):
    """Record calls for images that are processed in windows."""
    calls = []
    original = SPNRefiner._refine_picture
    monkeypatch.setattr(SPNRefiner, "_refine_picture", lambda *a: calls.append(1) or original(*a))
    return calls


@pytest.mark.parametrize("count", [1, 4])  # one mask, and masks that share an encoder pass without a mask
@pytest.mark.parametrize("widths", [(8, 8, 8, 8), (3, 5, 7, 9)])
@torch.no_grad()
def test_features_in_a_window_are_those_of_the_whole_picture(count, widths):
    torch.manual_seed(0)
    guidance, image = LiteGuidance(widths, sees_mask=True).eval(), torch.rand(1, 3, 160, 224)
    masks = torch.zeros(4, 1, 160, 224)
    masks[0, :, 70:91, 100:133] = torch.rand(21, 33)
    masks[1, :, :20, :50] = 1
    masks[2, :, 140:, 190:] = torch.rand(20, 34)
    masks[3, :, 33:75, 5:33] = 0.5
    frame = Window.whole(image)
    for chosen in masks.split(count):
        owns = windows_of_objects(chosen[:, 0])
        windows = [(own, own.grown(10, frame).over(2).times(2)) for own in owns]
        found = features_in_windows(guidance, image, chosen, windows)
        for mask, (_, wanted), features in zip(chosen.split(1), windows, found, strict=True):
            expected = wanted.over(2).of(guidance(torch.cat([image, mask], 1)))
            torch.testing.assert_close(features, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("form", WINDOWED)
@pytest.mark.parametrize("name", MASKS)
@torch.no_grad()
def test_windows_nearly_equal_whole_frames_and_the_rest_keeps_the_coarse_mask(form, name, windowed):
    refiner, (image, coarse) = small(form), inputs(MASKS[name])
    refined, expected = refiner(image, coarse), whole_frames(refiner, image, coarse)
    assert len(windowed) == 1
    window = windows_of_objects(coarse[0])[0].grown(16, Window.whole(image))
    torch.testing.assert_close(window.of(refined), window.of(expected), rtol=0, atol=0.01)
    assert (window.of(refined) - window.of(coarse)).abs().max() > 0.03
    far = torch.ones(SIZE, dtype=torch.bool)
    window.grown(32 + 16, Window.whole(image)).of(far).zero_()
    assert far.any() and torch.equal(refined[..., far], coarse[..., far])


@torch.no_grad()
def test_the_shipped_refiner_in_windows_agrees_with_whole_frames():
    torch.manual_seed(0)
    disk = ((torch.arange(256)[:, None] - 130) ** 2 + (torch.arange(320)[None] - 150) ** 2).sqrt()
    inside = (disk < 50).float()
    image = (0.3 + 0.4 * inside + 0.03 * torch.randn(3, 256, 320)).clamp(0, 1)[None]
    coarse = ((62 - disk) / 24).clamp(0, 1)[None, None]
    refiner = SPNRefiner.from_pretrained("lite")
    refined, expected = refiner(image, coarse), whole_frames(refiner, image, coarse)
    difference = (refined - expected).abs()[coarse > 0]
    assert 0 < difference.max() < 0.1 and difference.mean() < 1e-3
    assert ((refined > 0.5) != (expected > 0.5)).float().mean() < 1e-4


@pytest.mark.parametrize("form", WINDOWED)
@torch.no_grad()
def test_objects_and_pictures_do_not_influence_each_other(form, windowed):
    refiner, (image, coarse) = small(form), inputs(n=2)
    coarse[1] = coarse[1].flip(0)
    together = refiner(image, coarse)
    assert len(windowed) == 2
    for n in range(2):
        for k in range(coarse.shape[1]):
            alone = refiner(image[n : n + 1], coarse[n : n + 1, k : k + 1])
            torch.testing.assert_close(together[n : n + 1, k : k + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", WINDOWED)
@torch.no_grad()
def test_large_small_and_constant_masks_together(form):
    refiner = small(form)
    large, constants = torch.rand(SIZE), [torch.full(SIZE, value) for value in (0.0, 1.0, 0.3)]
    image, coarse = inputs(constants[0], large, MASKS["inside"], *constants[1:])
    refined, expected = refiner(image, coarse), whole_frames(refiner, image, coarse)
    torch.testing.assert_close(
        refined[:, 1], expected[:, 1], rtol=0, atol=1e-5
    )  # its window is the whole frame
    assert torch.equal(refined[:, [0, 3, 4]], coarse[:, [0, 3, 4]])
    assert not torch.equal(refined[:, 2], coarse[:, 2])


@pytest.mark.parametrize("form", WINDOWED)
@torch.no_grad()
def test_options_and_dtypes(form, windowed):
    refiner, (image, coarse) = small(form), inputs()
    expected = refiner(image, coarse)
    logits = refiner(image, coarse.logit(eps=1e-6), logits=True)
    torch.testing.assert_close(logits.sigmoid(), expected, rtol=0, atol=1e-4)
    half = small(form).bfloat16()(image.bfloat16(), coarse.bfloat16())
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.05)
    assert refiner(image, coarse[:, :0]).shape == (1, 0, *SIZE)
    assert len(windowed) == 3


@torch.no_grad()
def test_each_tile_has_windows_of_its_own(windowed):
    refiner, image, coarse = small(SEES, tile=256), torch.rand(1, 3, 200, 600), torch.zeros(1, 2, 200, 600)
    coarse[..., :50] = soft_box(60, 90, 10, 40, (200, 50))
    refined, expected = refiner(image, coarse), whole_frames(refiner, image, coarse)
    assert len(windowed) == 4
    torch.testing.assert_close(refined[..., 40:110, :64], expected[..., 40:110, :64], rtol=0, atol=0.01)
    assert torch.equal(refined[..., 256:], coarse[..., 256:])


@pytest.mark.parametrize("where", ["image", "coarse"])
@torch.no_grad()
def test_nan_fills_the_masks_that_it_touches(where):
    image, coarse = inputs(MASKS["inside"], MASKS["in a corner"])
    (image if where == "image" else coarse)[0, 0, 3, 4] = torch.nan
    refined = small(SEES)(image, coarse)
    assert refined[:, 0].isnan().all()
    assert refined[:, 1].isnan().all() if where == "image" else refined[:, 1].isfinite().all()


def test_whole_frames_are_used_where_windows_are_not_possible(windowed):
    image, coarse = inputs(MASKS["inside"])
    small(SEES)(image, coarse)  # with a gradient
    with torch.no_grad():
        small(SEES).train()(image, coarse)
        small("direct")(image, coarse)
        torch.jit.trace(small(SEES), (image, coarse), check_trace=False)
        torch.vmap(small("embedded"))(image[None], coarse[None])
        small(SEES).to("meta")(image.to("meta"), coarse.to("meta"))
        heard = small(SEES)
        heard.guidance.down[0].register_forward_hook(lambda *_: None)
        heard(image, coarse)
        own = small(SEES)
        own.guidance.__class__ = type("Mine", (LiteGuidance,), {})
        own(image, coarse)
        assert not windowed
        small(SEES)(image, coarse)
        assert windowed


@pytest.mark.parametrize("form", WINDOWED)
@torch.no_grad()
def test_weights_that_change_are_seen_at_once(form):
    refiner, (image, coarse) = small(form), inputs(MASKS["inside"])
    before = refiner(image, coarse)
    refiner.train()
    for _ in range(3):  # updates the running statistics
        refiner(image, coarse)
    refiner.eval()
    after = refiner(image, coarse)
    assert (after - before).abs().max() > 1e-3
    other = small(form)
    other.load_state_dict(refiner.state_dict())
    assert torch.equal(other(image, coarse), after)


def test_the_layers_that_fold_are_those_of_a_sequence():
    torch.manual_seed(0)
    guidance, x = LiteGuidance((8, 8, 8, 8)), torch.rand(2, 3, 32, 48)
    guidance(x)  # so that the running statistics are not the identity
    assert "down.0.0.1.running_var" in guidance.state_dict()
    for layer in [layer for stage in guidance.down for layer in stage]:
        conv, norm, relu = layer.eval()
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2), norm.bias.normal_()
            x, expected = layer(x), relu(norm(conv(x)))
        torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)


def test_decoding_in_strips_equals_decoding_at_once(monkeypatch):
    refiner, (image, coarse) = small(), inputs(torch.rand(SIZE), torch.rand(SIZE))
    expected = refiner(image, coarse).detach()  # with a gradient, hence without strips
    for pixels in (1, 20 * 224, 2**30):
        monkeypatch.setattr("spn._forms.STRIP_PIXELS", pixels)
        with torch.no_grad():
            torch.testing.assert_close(refiner(image, coarse), expected, rtol=0, atol=5e-6)


def test_windows():
    frame = Window(0, 10, 0, 20)
    window = Window(2, 5, 4, 9)
    assert window.grown(3, frame) == Window(0, 8, 1, 12)
    assert window.over(2) == Window(1, 3, 2, 5) and window.over(2).times(2) == Window(2, 6, 4, 10)
    assert window.inside(Window(1, 8, 3, 12)) == Window(1, 4, 1, 6)
    assert window.seen(1) == Window(1, 6, 3, 10)
    masks = torch.zeros(3, 10, 20)
    masks[0, 2:5, 4:9] = 0.5
    masks[1] = 1 / 512
    masks[2, 9, 0] = torch.nan
    assert windows_of_objects(masks) == [window, None, Window(9, 10, 0, 1)]
    assert windows_of_objects(masks[:0]) == []


def test_seen_is_what_a_convolution_changes():
    conv = torch.nn.Conv2d(1, 1, 3, padding=1, bias=False)
    torch.nn.init.ones_(conv.weight)
    for stride in (1, 2):
        conv.stride = (stride, stride)
        for window in (Window(4, 7, 5, 8), Window(3, 4, 6, 9), Window(0, 2, 18, 20)):
            x = torch.zeros(1, 1, 10, 20)
            window.of(x).fill_(1)
            changed = conv(x)
            assert windows_of_objects(changed[0].detach()) == [window.seen(stride) & Window.whole(changed)], (
                window,
                stride,
            )


class Coarse(torch.nn.Module):
    """A custom guidance network that sees only the image, with features of any stride."""

    channels = 6

    def __init__(self, stride):
        super().__init__()
        self.stride = self.multiple = stride
        self.conv = torch.nn.Conv2d(3, 6, stride, stride=stride)

    def forward(self, image):
        return self.conv(image)


@pytest.mark.parametrize("stride", [1, 5, 8, 32, 64])
@torch.no_grad()
def test_windows_fit_the_cells_of_any_guidance(stride, windowed):
    torch.manual_seed(3)
    refiner = SPNRefiner(Coarse(stride), hidden=4, groups=2).eval()
    image, mask = torch.rand(1, 3, 320, 480), soft_box(140, 180, 150, 200, (320, 480))[None, None]
    refined = refiner(image, mask)
    assert windowed
    inside = (slice(None), slice(None), slice(140, 180), slice(150, 200))
    torch.testing.assert_close(refined[inside], whole_frames(refiner, image, mask)[inside], atol=0.01, rtol=0)


def replaced_activation(guidance):
    guidance.up[0][2] = torch.nn.SiLU()


def replaced_convolution(guidance):
    guidance.down[1][1][0] = torch.nn.Conv2d(8, 8, 3, padding=1, bias=True)


def replaced_norm(guidance):
    guidance.up[1][1] = torch.nn.BatchNorm2d(8, affine=False)


def longer_layer(guidance):
    guidance.up[0].append(torch.nn.Tanh())


def other_stage(guidance):
    guidance.down[1] = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Conv2d(8, 8, 5, padding=2))


def heard_activation(guidance):
    guidance.up[0][2].register_forward_hook(lambda module, inputs, output: output * 0)


@pytest.mark.parametrize(
    "change",
    [
        replaced_activation,
        replaced_convolution,
        replaced_norm,
        longer_layer,
        other_stage,
        heard_activation,
    ],
)
@pytest.mark.parametrize("sees_mask", [False, True])
def test_modified_layers_count_with_and_without_a_gradient(change, sees_mask):
    torch.manual_seed(4)
    guidance = LiteGuidance((8, 8, 8, 8), sees_mask=sees_mask)
    change(guidance)
    refiner = SPNRefiner(guidance, hidden=4, groups=2).eval()
    refiner.windows = sees_mask  # without the mask, windows would miss what is carried in from outside
    image, masks = inputs(MASKS["inside"], MASKS["blobs"])
    with torch.no_grad():
        refined = refiner(image, masks)
    torch.testing.assert_close(refined, refiner(image, masks).detach(), atol=1e-4, rtol=0)


def test_hooks_and_parametrisations_of_the_full_resolution_convolutions_count():
    refiner = small("embedded").eval()
    image, masks = inputs(MASKS["inside"])
    heard = []
    refiner.propagation.fine_image.register_forward_hook(lambda *_: heard.append("image"))
    refiner.propagation.fine_mask.register_forward_hook(lambda *_: heard.append("mask"))
    with torch.no_grad():
        refiner(image, masks)
    refiner(image, masks)
    assert set(heard) == {"image", "mask"} and len(heard) >= 4


def test_a_pruned_convolution_trains_on():
    refiner = small("embedded").train()
    prune.l1_unstructured(refiner.propagation.fine_image, "weight", 0.5)
    image, masks = inputs(MASKS["inside"])
    for _ in range(2):
        refiner(image, masks).sum().backward()


@torch.no_grad()
def test_a_nan_in_one_picture_leaves_the_others(windowed):
    refiner = small("embedded").eval()
    image, masks = inputs(MASKS["inside"], n=2)
    expected = refiner(image, masks)
    image[1, 0, 5, 5] = float("nan")
    assert torch.equal(refiner(image, masks)[0], expected[0])


@torch.no_grad()
def test_a_refiner_pickled_before_there_were_windows_has_them():
    refiner = small("embedded").eval()
    assert "windows" not in vars(refiner) and refiner.windows
