"""Guidance networks: shapes, limits and loading of weights."""

import pytest
import torch

from spn.guidance import LiteGuidance, VGG16Guidance


def test_lite_gives_features_at_half_resolution_within_its_budget():
    net = LiteGuidance()
    assert net(torch.rand(2, 3, 32, 48)).shape == (2, net.channels, 16, 24)
    assert sum(p.numel() for p in net.parameters()) <= 1_500_000


@pytest.mark.parametrize("stride", [1, 2])
def test_vgg16_gives_features_at_its_stride(stride):
    net = VGG16Guidance(weights=None, stride=stride)
    assert net(torch.rand(1, 3, 32, 64)).shape == (1, net.channels, 32 // stride, 64 // stride)


def test_vgg16_has_torchvisions_layout():
    vgg16 = pytest.importorskip("torchvision").models.vgg16(weights=None)
    ours, theirs = VGG16Guidance(weights=None).features, vgg16.features
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x))


def test_vgg16_decoder_mirrors_the_encoder():
    def shapes(layers):
        return [layer.weight.shape[:2] for layer in layers if isinstance(layer, torch.nn.Conv2d)]

    net = VGG16Guidance(weights=None)
    down = shapes(net.features)
    up = [shape for block in reversed(net.up) for shape in shapes(block)]
    assert up[:-1] == [(inputs, outputs) for outputs, inputs in reversed(down)][:-1]
    assert up[-1] == (net.channels, 64)


def test_vgg16_skips_join_maps_of_equal_size():
    net = VGG16Guidance(weights=None).eval()
    seen = {}
    net.features[3].register_forward_hook(lambda _, inputs, output: seen.update(skip=output))  # conv1_2
    net.up[1].register_forward_hook(lambda _, inputs, output: seen.update(below=output))
    net.up[0].register_forward_pre_hook(lambda _, inputs: seen.update(joined=inputs[0]))
    net(torch.rand(1, 3, 64, 32))
    up = torch.nn.functional.interpolate(seen["below"], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen["joined"], up + seen["skip"])


def test_vgg16_loads_a_state_dict_from_a_file(tmp_path):
    source = VGG16Guidance(weights=None)
    state = {f"features.{k}": v for k, v in source.features.state_dict().items()} | {
        "classifier.0.bias": torch.zeros(1)
    }
    torch.save(state, tmp_path / "vgg16.pth")
    loaded = VGG16Guidance(weights=tmp_path / "vgg16.pth")
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.features.parameters(), loaded.features.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text that is none",
        b"PK\x03\x04",
        bytes(100),
        [1],
        {"a": 1},
        {"features.0.weight": torch.zeros(1)},
    ],
)
def test_vgg16_names_a_file_that_is_no_state_dict(tmp_path, content):
    path = tmp_path / "vgg16.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(
        ValueError, match=r"weights must be the path of a VGG-16 state dict, got '.*vgg16\.pth' \("
    ) as error:
        VGG16Guidance(weights=path)
    assert "\n" not in str(error.value)


def test_vgg16_says_what_to_do_without_imagenet_weights(monkeypatch):
    torchvision_models = pytest.importorskip("torchvision.models")

    def unreachable(self, *args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torchvision_models.VGG16_Weights, "get_state_dict", unreachable)
    with pytest.raises(RuntimeError, match=r"no network.*weights=None"):
        VGG16Guidance()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LiteGuidance(widths=(1, 2, 3)), "widths must be four"),
        (lambda: VGG16Guidance(weights=None, stride=4), "stride must be 1 or 2, got 4"),
        (lambda: VGG16Guidance(weights="nowhere.pth"), "weights must be .* got 'nowhere.pth'"),
        (
            lambda: LiteGuidance()(torch.rand(1, 1, 16, 16)),
            r"image must be \(N, 3, H, W\), got \(1, 1, 16, 16\)",
        ),
        (lambda: LiteGuidance()(torch.rand(1, 3, 16, 17)), "multiples of 16"),
    ],
)
def test_wrong_arguments_name_what_was_expected_and_got(build, message):
    with pytest.raises(ValueError, match=message):
        build()
