"""The network for foreground and instance nets, with ResNet-101 or small features."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spn import IMAGENET_MEAN, IMAGENET_STD
from vos_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from torchvision.models import ResNet

BACKBONES = ("resnet101", "small")


class ForegroundNet(nn.Module):
    """Map images to class logits: features, a 1x1 head, and bilinear upsampling to the image size.

    Args:
        backbone: ``"resnet101"``, the paper's, or ``"small"``, for a CPU.
        classes: channels C of the output; channel 0 is background.
        pretrained: load ImageNet weights (available for ``"resnet101"`` only).

    Shape:
        image (N, 3, H, W), RGB in [0, 1], to logits (N, C, H, W); any H, W >= 32.

    Raises:
        PipelineError: the backbone is unknown, or its weights cannot be downloaded.

    Source: paper, section 3.1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str = "resnet101", classes: int = 2, pretrained: bool = True) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise PipelineError(f"unknown backbone {backbone!r}: choose one of {', '.join(BACKBONES)}")
        self.features: ResNetFeatures | SmallFeatures = (
            ResNetFeatures(pretrained) if backbone == "resnet101" else SmallFeatures()
        )
        self.head = nn.Conv2d(self.features.channels, classes, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(self.features((image - self.mean) / self.std))
        return F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)

    def with_objects(self, count: int) -> ForegroundNet:
        """Return a per-video net: a copy with ``count`` + 1 channels, in which each object starts as the foreground."""
        channels = [0] + [1] * count
        net = copy.deepcopy(self)
        net.head = nn.Conv2d(self.head.in_channels, len(channels), 1).to(self.head.weight.device)
        net.head.load_state_dict({name: value[channels] for name, value in self.head.state_dict().items()})
        return net


class ResNetFeatures(nn.Module):
    """ResNet-101 features with frozen batch normalisation: res3 to res5 fused to 128 channels at 1/8.

    res5 is upsampled by 2 and joined with 0.2 res4; the result is upsampled by 2 and joined with 0.2 res3. The factor
    0.2 keeps the earlier stages, whose responses are larger, from dominating res5.
    """

    channels = 128

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        net = _resnet101(pretrained)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)  # 256, 1/4
        self.res3, self.res4, self.res5 = net.layer2, net.layer3, net.layer4  # 512, 1024, 2048
        self.fuse = nn.Conv2d(2048 + 1024 + 512, self.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        res3 = self.res3(self.stem(x))
        res4 = self.res4(res3)
        fused = torch.cat([_resize_to(self.res5(res4), res4), 0.2 * res4], 1)
        fused = torch.cat([_resize_to(fused, res3), 0.2 * res3], 1)
        return self.fuse(fused)


class SmallFeatures(nn.Module):
    """A residual encoder down to 1/16 and a decoder with additive skip connections up to 1/2.

    Group normalisation keeps no running statistics, so none drift when a network is fine-tuned on one frame.
    """

    widths = (16, 32, 64, 96)  # at 1/2, 1/4, 1/8, 1/16
    channels = widths[0]

    def __init__(self) -> None:
        super().__init__()
        w = self.widths
        self.stem = _conv(3, w[0], stride=2)
        self.down = nn.ModuleList(_Residual(before, after, stride=2) for before, after in pairwise(w))
        self.near, self.far = _Residual(w[-1], w[-1], dilation=2), _Residual(w[-1], w[-1], dilation=4)
        self.scene = nn.Conv2d(w[-1], w[-1], 1)
        self.lateral = nn.ModuleList(nn.Conv2d(after, before, 1) for before, after in pairwise(w))
        self.up = nn.ModuleList(_conv(width, width) for width in w[:-1])

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.stem(x)]
        for down in self.down:
            maps.append(down(maps[-1]))
        y = self.far(self.near(maps.pop()))
        y = y + self.scene(y.mean((2, 3), keepdim=True))
        for lateral, up, skip in zip(self.lateral[::-1], self.up[::-1], maps[::-1], strict=True):
            y = up(skip + _resize_to(lateral(y), skip))
        return y


class _Residual(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))"""

    def __init__(self, before: int, after: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(before, after, stride, dilation)
        self.conv2 = nn.Conv2d(after, after, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.GroupNorm(8, after)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(self.conv1(x))))


def _conv(before: int, after: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, 3, stride, dilation, dilation, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, after), nn.ReLU(inplace=True))


def _resize_to(x: Tensor, like: Tensor) -> Tensor:
    # If the strides do not divide the size, the larger map is not exactly twice as large.
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _resnet101(pretrained: bool) -> ResNet:
    try:
        from torchvision.models import ResNet101_Weights, resnet101
        from torchvision.ops import FrozenBatchNorm2d
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        raise PipelineError(
            f"backbone resnet101 needs torchvision ({error}): install the 'vos' extra"
        ) from error
    if not pretrained:
        return resnet101(norm_layer=FrozenBatchNorm2d)
    weights = ResNet101_Weights.IMAGENET1K_V1
    try:
        return resnet101(weights=weights, norm_layer=FrozenBatchNorm2d)
    except (URLError, OSError, RuntimeError) as error:
        raise PipelineError(
            f"cannot download the ImageNet weights of ResNet-101 ({error}): put {weights.url} into "
            f"{torch.hub.get_dir()}/checkpoints, or use --preset small"
        ) from error
