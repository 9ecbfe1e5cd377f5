"""The refiner raises an error for values far from [0, 1], wherever values can be read."""

import pytest
import torch
import torch.nn.functional as F
from refiner_cases import FORMS, small
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from spn.guidance import IMAGENET_MEAN, IMAGENET_STD

IMAGE, COARSE = torch.rand(1, 3, 20, 24), torch.rand(1, 2, 20, 24)
MEAN, STD = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
LOGITS = 4 * torch.randn(1, 2, 20, 24)

WRONG = {
    "image times 255": (
        IMAGE * 255,
        COARSE,
        r"image must be in \[0, 1\], got values from .* to 25\d.*divide by 255",
    ),
    "image normalised": ((IMAGE - MEAN) / STD, COARSE, r"image must be in .*skip the normalisation"),
    "coarse times 255": (IMAGE, COARSE * 255, r"coarse must be in \[0, 1\], got values from .*divide by 255"),
    "log-odds": (IMAGE, LOGITS, r"coarse must be in .* got values from -.*pass logits=True"),
    "one negative log-odd": (
        IMAGE,
        F.pad(COARSE[..., 1:], (1, 0), value=-4.0),
        "coarse must be in .* from -4 to",
    ),
}


@pytest.mark.parametrize("call", ["forward", "gates"])
@pytest.mark.parametrize(("image", "coarse", "message"), WRONG.values(), ids=WRONG)
def test_values_far_from_the_range_are_refused(call, image, coarse, message):
    with pytest.raises(ValueError, match=message) as error:
        getattr(small(), call)(image, coarse)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_every_dtype_is_checked(dtype):
    with pytest.raises(ValueError, match="image must be in"):
        small().to(dtype)(255 * IMAGE.to(dtype), COARSE.to(dtype))


def test_overshoot_from_resampling_is_accepted():
    steps = (torch.rand(1, 5, 6, 7) > 0.5).float()
    sharp = F.interpolate(steps, (20, 24), mode="bicubic")
    assert sharp.min() < -0.05 and sharp.max() > 1.05
    small()(sharp[:, :3], sharp[:, 3:])
    small()(IMAGE * 1.4 - 0.2, COARSE * 1.4 - 0.2)


def test_log_odds_may_be_of_any_size_but_the_image_may_not():
    assert small()(IMAGE, 1000 * LOGITS, logits=True).isfinite().all()
    with pytest.raises(ValueError, match="image must be in"):
        small()(255 * IMAGE, LOGITS, logits=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("where", ["image", "coarse"])
def test_nan_passes_and_fills_the_masks_that_it_touches(form, where):
    image, coarse = IMAGE.clone(), COARSE.clone()
    (image if where == "image" else coarse)[0, 0, 3, 4] = torch.nan
    refined = small(form)(image, coarse)
    assert refined[:, 0].isnan().all()
    assert refined[:, 1].isnan().all() if where == "image" else refined[:, 1].isfinite().all()


def test_values_are_read_once(monkeypatch):
    transfers = []
    for name in ("tolist", "item", "__bool__", "__float__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor, name, lambda *a, f=original, name=name: transfers.append(name) or f(*a)
        )
    small()(IMAGE, COARSE)
    assert transfers == ["tolist"]


def test_the_check_leaves_no_trace_in_autograd():
    image = IMAGE.clone().requires_grad_()
    refiner = small()
    refiner(image, COARSE).sum().backward()
    assert image.grad.isfinite().all()


def test_tensors_without_values_are_not_checked():
    refiner = small()
    meta = refiner.to("meta")(255 * IMAGE.to("meta"), COARSE.to("meta"))
    assert meta.shape == COARSE.shape
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [mode.from_tensor(tensor) for tensor in (255 * IMAGE, COARSE)]
        refiner = small()
        assert refiner(*fakes).shape == COARSE.shape
    assert refiner(*fakes).shape == COARSE.shape  # outside the mode, too


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_checked_while_a_call_is_transformed(form):
    refiner, image = small(form).requires_grad_(False), IMAGE * 255
    images, masks = torch.stack([image, image]), torch.stack([COARSE, COARSE])
    expected = torch.jit.trace(refiner, (IMAGE, COARSE))(image, COARSE)
    assert expected.isfinite().all()
    torch.testing.assert_close(
        torch.vmap(refiner)(images, masks), torch.stack([expected] * 2), rtol=1e-4, atol=1e-4
    )
    gradient = torch.func.grad(lambda coarse: refiner(image, coarse).sum())(COARSE)
    assert gradient.isfinite().all()
    graph = make_fx(refiner)(image, COARSE)
    assert not any("aminmax" in str(node.target) for node in graph.graph.nodes)
