"""The refiner: shapes, ranges, fixed points, gradients, files, and improved masks."""

import pytest
import torch
import torch.nn.functional as F
from refiner_cases import FORMS, small

from spn import _checkpoint
from spn.functional import propagate_four_way
from spn.guidance import LiteGuidance, VGG16Guidance
from spn.refiner import SPNRefiner


def disk(size, centre, radius):
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return (((y - centre[0]) ** 2 + (x - centre[1]) ** 2) <= radius**2).float()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("n", "k", "h", "w"), [(1, 1, 33, 47), (2, 3, 16, 31), (1, 2, 1, 5), (1, 0, 8, 8), (0, 1, 8, 8)]
)
def test_shape_and_range_for_any_size_and_number_of_objects(form, n, k, h, w):
    refined = small(form)(torch.rand(n, 3, h, w), torch.rand(n, k, h, w))
    assert refined.shape == (n, k, h, w)
    assert ((refined >= 0) & (refined <= 1)).all()


@pytest.mark.parametrize("form", FORMS)
def test_objects_do_not_influence_each_other(form):
    image, coarse = torch.rand(2, 3, 20, 24), torch.rand(2, 3, 20, 24)
    refiner = small(form)
    one_by_one = torch.cat([refiner(image, coarse[:, i : i + 1]) for i in range(3)], 1)
    torch.testing.assert_close(refiner(image, coarse), one_by_one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_constant_masks_stay_unchanged(form, value):
    coarse = torch.full((1, 1, 30, 22), value)
    assert torch.equal(small(form)(torch.rand(1, 3, 30, 22), coarse), coarse)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_the_guidance_the_image_and_the_coarse_mask(form):
    refiner = small(form).train()
    image, coarse = torch.rand(2, 3, 32, 32, requires_grad=True), torch.rand(2, 1, 32, 32, requires_grad=True)
    refiner(image, coarse).square().mean().backward()
    for tensor in (image, coarse, *refiner.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all()
    assert image.grad.abs().sum() > 0 and coarse.grad.abs().sum() > 0
    assert any(p.grad.abs().sum() > 0 for p in refiner.guidance.down.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_single(form, dtype):
    image, coarse = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    expected = small(form)(image, coarse)
    refined = small(form).to(dtype)(image.to(dtype), coarse.to(dtype))
    assert refined.dtype == dtype
    torch.testing.assert_close(refined.float(), expected, rtol=0, atol=0.05)


def test_tiles_agree_with_the_whole_picture_away_from_the_seams():
    torch.manual_seed(1)
    image, coarse = torch.rand(1, 3, 300, 420), disk((300, 420), (150, 200), 90)[None, None]
    refiner = small()
    whole = refiner(image, coarse)
    refiner.tile = 256
    tiled = refiner(image, coarse)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.01
    image = image[..., :100, :120]  # smaller than a tile, so the computation is the same
    assert torch.equal(refiner(image, coarse[..., :100, :120]), small()(image, coarse[..., :100, :120]))


@pytest.mark.parametrize("form", FORMS)
def test_save_and_load_is_bit_equal(tmp_path, form):
    refiner = small(form)
    refiner.save_pretrained(tmp_path / "refiner.safetensors")
    loaded = SPNRefiner.from_pretrained(tmp_path / "refiner.safetensors")
    assert not loaded.training and loaded.config == refiner.config
    for name, value in refiner.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    image, coarse = torch.rand(1, 3, 24, 24), torch.rand(1, 1, 24, 24)
    refiner.to(memory_format=torch.channels_last)  # as for loaded refiners; other layouts round differently
    assert torch.equal(refiner(image, coarse), loaded(image, coarse))


def test_half_precision_files_load_in_single_precision(tmp_path):
    refiner = small()
    refiner.save_pretrained(tmp_path / "half.safetensors", dtype=torch.float16)
    loaded = SPNRefiner.from_pretrained(tmp_path / "half.safetensors")
    for name, value in refiner.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], expected), name


def test_files_follow_the_safetensors_format(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    refiner = small()
    refiner.save_pretrained(tmp_path / "refiner.safetensors")
    theirs = safetensors.load_file(tmp_path / "refiner.safetensors")
    assert all(torch.equal(theirs[name], value) for name, value in refiner.state_dict().items())


def test_a_vgg16_guided_refiner_is_rebuilt_from_its_file(tmp_path):
    refiner = SPNRefiner(VGG16Guidance(weights=None), form="direct").eval()
    refiner.save_pretrained(tmp_path / "vgg.safetensors", dtype=torch.bfloat16)
    assert isinstance(SPNRefiner.from_pretrained(tmp_path / "vgg.safetensors").guidance, VGG16Guidance)


def test_a_custom_guidance_class_is_required(tmp_path):
    class Mine(LiteGuidance):
        pass

    refiner = SPNRefiner(Mine(widths=(4, 4, 4, 4)), hidden=4)
    refiner.save_pretrained(tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=r"guidance must be given.*Mine"):
        SPNRefiner.from_pretrained(tmp_path / "mine.safetensors")
    loaded = SPNRefiner.from_pretrained(tmp_path / "mine.safetensors", guidance=Mine(widths=(4, 4, 4, 4)))
    assert isinstance(loaded.guidance, Mine)


def jaccard(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize("factor", [8, 16])
def test_the_pretrained_refiner_improves_a_coarse_mask(factor):
    torch.manual_seed(0)
    h, w = 128, 160
    mask = torch.maximum(disk((h, w), (60, 70), 34), disk((h, w), (80, 110), 20))
    mask[40:52, 20:60] = 1
    stripes = 0.1 * torch.sin(torch.arange(w) / 3)
    image = torch.where(
        mask > 0, torch.tensor([0.7, 0.4, 0.3])[:, None, None], torch.tensor([0.3, 0.5, 0.4])[:, None, None]
    )
    image = (image + stripes + 0.02 * torch.randn(3, h, w)).clamp(0, 1)[None]
    cells = F.avg_pool2d(mask[None, None], factor)
    coarse = F.interpolate(cells, (h, w), mode="bilinear")
    refined = SPNRefiner.from_pretrained("lite")(image, coarse)
    before, after = jaccard(coarse[0, 0] > 0.5, mask > 0), jaccard(refined[0, 0] > 0.5, mask > 0)
    assert after > before + 0.02 and after > 0.95, (before, after)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "both"}, "form must be one of .* got 'both'"),
        ({"hidden": 6, "groups": 4}, "hidden must be a multiple of groups = 4, got 6"),
        ({"rounds": 0}, "rounds must be >= 1, got 0"),
        ({"tile": 64}, "tile must be None or >= 256, got 64"),
        ({"convex": True}, "convex requires form 'direct', got form 'embedded'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        SPNRefiner(LiteGuidance(), **options)


@pytest.mark.parametrize(
    ("image", "coarse", "error", "message"),
    [
        (
            torch.rand(1, 4, 8, 8),
            torch.rand(1, 1, 8, 8),
            ValueError,
            r"image must be \(N, 3, H, W\), got \(1, 4, 8, 8\)",
        ),
        (
            torch.rand(1, 3, 8, 8),
            torch.rand(1, 8, 8),
            ValueError,
            r"coarse must be .* = \(1, K, 8, 8\), got \(1, 8, 8\)",
        ),
        (torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 9), ValueError, "coarse must be"),
        (
            torch.rand(1, 3, 8, 8),
            torch.ones(1, 1, 8, 8, dtype=torch.uint8),
            TypeError,
            "coarse must be floating point",
        ),
        ([[1.0]], torch.rand(1, 1, 8, 8), TypeError, "image must be a torch.Tensor, got list"),
    ],
)
def test_wrong_inputs(image, coarse, error, message):
    with pytest.raises(error, match=message):
        small()(image, coarse)


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match=r"name must be one of .* got 'nowhere'"):
        SPNRefiner.from_pretrained("nowhere")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    with pytest.raises(ValueError, match="must be a safetensors file"):
        SPNRefiner.from_pretrained(tmp_path / "text.safetensors")
    small().save_pretrained(tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="must be a safetensors file"):
        SPNRefiner.from_pretrained(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    "config", ["", "[1", "[1]", "{}", '{"guidance": 1}', '{"guidance": [], "guidance_config": 1}']
)
def test_a_damaged_configuration_is_named(tmp_path, config):
    path = tmp_path / "refiner.safetensors"
    _checkpoint.save({"a": torch.zeros(1)}, path, {"format": "pt", "spn_refiner": config})
    with pytest.raises((ValueError, TypeError), match=r"name must be|guidance must be") as error:
        SPNRefiner.from_pretrained(path)
    assert "\n" not in str(error.value)


def test_saving_replaces_nothing_but_its_own_file(tmp_path, monkeypatch):
    path, beside = tmp_path / "refiner.safetensors", tmp_path / "refiner.safetensors.part"
    beside.write_text("mine")
    small().save_pretrained(path)
    whole = path.read_bytes()

    def fail(*paths):
        raise OSError("no space")

    monkeypatch.setattr(_checkpoint.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        small().save_pretrained(path)
    assert path.read_bytes() == whole and beside.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [path, beside]


def test_checkpoints_of_another_version_are_refused(tmp_path):
    refiner, path = small(), tmp_path / "other.safetensors"
    with torch.no_grad():
        refiner.propagation.gates.weight = torch.nn.Parameter(torch.zeros(1, 1, 1, 1))
    refiner.save_pretrained(path)
    with pytest.raises(ValueError, match=r"checkpoint of this version's refiner, got .*gates\.weight"):
        SPNRefiner.from_pretrained(path)
    refiner = small()
    refiner.config["trust"] = 1.5
    refiner.save_pretrained(path)
    with pytest.raises(ValueError, match=r"checkpoint of this version's refiner, got .*trust"):
        SPNRefiner.from_pretrained(path)


@pytest.mark.parametrize("form", ["direct", "embedded"])
@pytest.mark.parametrize("sees_mask", [False, True])
def test_gates_are_stable_weights_of_the_size_that_is_propagated(form, sees_mask):
    torch.manual_seed(0)
    refiner = SPNRefiner(LiteGuidance((4, 4, 4, 4), sees_mask), form=form, hidden=8, groups=4).eval()
    gates = refiner.gates(torch.rand(2, 3, 21, 37), torch.rand(2, 3, 21, 37))
    groups, size = (2, (21, 37)) if form == "direct" else (4, (11, 19))
    assert gates.shape == (2, 3 if sees_mask else 1, 4, 3, groups, *size)
    assert gates.abs().sum(3).max() <= 1 + 1e-6 and gates.abs().sum(3).max() > 0


@torch.no_grad()
def test_the_direct_form_is_the_papers_equations():
    refiner, image, coarse = small("direct"), torch.rand(1, 3, 48, 32), torch.rand(1, 3, 48, 32)
    gates = refiner.gates(image, coarse)[:, 0]
    assert gates.min() < -0.1
    refined = refiner(image, coarse)
    for k in range(3):  # all objects share the two groups of gates, foreground and background
        score = coarse[:, k : k + 1].logit(eps=1 / 512) / 2
        f, b = propagate_four_way(torch.cat([score, -score], 1), gates).unbind(1)
        torch.testing.assert_close(refined[:, k], torch.stack([f, b]).softmax(0)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_convex_form_is_a_mean_of_mask_values():
    refiner, image, coarse = small("direct, convex"), torch.rand(1, 3, 48, 32), torch.rand(1, 1, 48, 32)
    gates = refiner.gates(image, coarse)[:, 0]
    assert gates.min() >= 0
    f, b = propagate_four_way(torch.cat([coarse, 1 - coarse], 1), gates).unbind(1)
    torch.testing.assert_close(refiner(image, coarse)[:, 0], f / (f + b))


@torch.no_grad()
def test_the_direct_form_starts_near_the_coarse_mask_and_zero_gates_are_the_identity():
    torch.manual_seed(0)
    refiner = SPNRefiner(LiteGuidance((8, 8, 8, 8)), form="direct").eval()
    image, coarse = torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    difference = (refiner(image, coarse) - coarse).abs().max()
    assert 0 < difference < 0.1
    for conv in (refiner.propagation.gates[0], refiner.propagation.local):
        conv.weight.zero_()
    hard = disk((32, 32), (16, 16), 8)[None, None]
    torch.testing.assert_close(refiner(image, coarse), coarse.clamp(1 / 512, 511 / 512))
    torch.testing.assert_close(refiner(image, hard), hard, rtol=0, atol=1 / 511)


def test_the_image_joins_the_direct_form_only_where_the_guidance_is_coarser():
    assert SPNRefiner(LiteGuidance((4, 4, 4, 4)), form="direct").propagation.local is not None
    assert SPNRefiner(VGG16Guidance(None), form="direct").propagation.local is None


def test_logits_in_logits_out():
    refiner = small()
    image, logits = torch.rand(1, 3, 20, 30), 4 * torch.randn(1, 2, 20, 30)
    refined = refiner(image, logits, logits=True)
    torch.testing.assert_close(refined.sigmoid(), refiner(image, logits.sigmoid()), rtol=1e-4, atol=1e-5)
    assert refiner(image, logits.half(), logits=True).dtype == torch.float16
    certain = torch.full((1, 1, 20, 30), 50.0)
    assert torch.isfinite(refiner(image, certain, logits=True)).all()
