"""The network model: output sizes, ImageNet weights, and channels for objects."""

from urllib.error import URLError

import pytest
import torch

from vos_pipeline.errors import PipelineError
from vos_pipeline.nets import ForegroundNet


@pytest.mark.parametrize("size", [(64, 96), (45, 67), (33, 128)])
def test_small_net_keeps_the_size(size):
    net = ForegroundNet("small", classes=2)
    assert net(torch.rand(2, 3, *size)).shape == (2, 2, *size)


def test_paper_net_has_the_fused_map_of_3584_channels():
    net = ForegroundNet("resnet101", pretrained=False).eval()
    assert net.features.fuse.in_channels == 3584
    with torch.no_grad():
        assert net(torch.rand(1, 3, 64, 70)).shape == (1, 2, 64, 70)


def test_paper_net_freezes_its_normalisation():
    net = ForegroundNet("resnet101", pretrained=False).train()
    norms = [module for module in net.modules() if "BatchNorm" in type(module).__name__]
    assert len(norms) == 104
    assert not any(list(norm.parameters()) for norm in norms)
    before = norms[0].running_mean.clone()
    with torch.no_grad():
        net(torch.rand(1, 3, 64, 64) + 3)
    assert torch.equal(norms[0].running_mean, before)


def test_missing_weights_say_where_to_put_them(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models.ResNet101_Weights.get_state_dict", offline)
    with pytest.raises(PipelineError, match=r"checkpoints.*--preset small"):
        ForegroundNet("resnet101")


def test_unknown_backbone():
    with pytest.raises(PipelineError, match="resnet101, small"):
        ForegroundNet("vgg")


def test_objects_start_as_the_foreground():
    net = ForegroundNet("small").eval()
    image = torch.rand(1, 3, 48, 48)
    with torch.no_grad():
        two, four = net(image), net.with_objects(3)(image)
    assert four.shape[1] == 4
    torch.testing.assert_close(four[:, 0], two[:, 0])
    for k in (1, 2, 3):
        torch.testing.assert_close(four[:, k], two[:, 1])


def test_with_objects_does_not_modify_the_net():
    net = ForegroundNet("small")
    other = net.with_objects(1)
    with torch.no_grad():
        other.head.weight.zero_()
        next(other.features.parameters()).zero_()
    assert net.head.weight.abs().sum() > 0
    assert next(net.features.parameters()).abs().sum() > 0
