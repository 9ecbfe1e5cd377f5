"""Guidance networks, which compute the image features that a refiner turns into gates.

A guidance network is an ``nn.Module`` that maps an RGB image (N, 3, H, W) in [0, 1], with H and W multiples
of its ``multiple``, to features (N, ``channels``, H / ``stride``, W / ``stride``). Any module with this
interface can guide a :class:`spn.SPNRefiner`. :class:`Guidance` declares the interface for type checkers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._refiner_inputs import is_plain, only_result_counts

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Guidance", "LiteGuidance", "VGG16Guidance"]

# Mean and standard deviation of ImageNet's RGB values in [0, 1]. Pretrained networks expect normalised input.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def beside_mask(picture: Tensor, mask: Tensor) -> Tensor:
    """Append a mask to a normalised image as its fourth channel."""
    return torch.cat([picture, 2 * mask - 1], 1)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Guidance(Protocol):
    """Interface of a guidance network for :class:`spn.SPNRefiner`. Networks need not derive from this class.

    Two more attributes are optional. ``sees_mask`` is True for a network that expects the coarse mask as the fourth
    channel of its input. ``config`` holds the arguments that rebuild the network; it is saved with a refiner.
    To load a refiner with a custom network, pass the network to :meth:`spn.SPNRefiner.from_pretrained`.
    """

    @property
    def channels(self) -> int:
        """Number of feature channels."""

    @property
    def stride(self) -> int:
        """Ratio of the side of the image to the side of the features."""

    @property
    def multiple(self) -> int:
        """Height and width of the image must be multiples of this number."""

    def __call__(self, image: Tensor, /) -> Tensor: ...


class _Guidance(nn.Module):
    """Base class of the networks below, which normalises the image."""

    channels: int
    stride: int
    multiple: int
    config: dict[str, object]
    sees_mask = False
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def normalized(self, image: Tensor) -> Tensor:
        channels = 4 if self.sees_mask else 3
        if image.dim() != 4 or image.shape[1] != channels:
            raise ValueError(f"image must be (N, {channels}, H, W), got {tuple(image.shape)}")
        if image.shape[2] % self.multiple or image.shape[3] % self.multiple:
            raise ValueError(
                f"image must have H and W that are multiples of {self.multiple}, got {tuple(image.shape)}"
            )
        x = (image[:, :3] - self.mean) / self.std
        return beside_mask(x, image[:, 3:]) if self.sees_mask else x


class ConvNormReLU(nn.Sequential):
    """3x3 convolution, batch normalisation and ReLU, with the state dict of an nn.Sequential of the three."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        folds = only_result_counts(x, *self.parameters())
        layer: Callable[[Tensor], Tensor] = self.folded() if folds else super().forward
        return layer(x)

    def is_as_built(self) -> bool:
        """Whether it still consists of the three original modules, without hooks."""
        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
        if len(self) != len(kinds) or not all(map(is_plain, self, kinds)):
            return False
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        return conv.bias is None and norm.affine and norm.track_running_stats

    def folded(self) -> Callable[[Tensor], Tensor]:
        """Return the layer as a function, with the normalisation folded into the convolution where possible."""
        conv, norm = self[0], self[1]
        if not self.is_as_built() or norm.training:
            return super().forward
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        # In float32, because half precision rounds the variance.
        scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
        shift = norm.bias.float() - norm.running_mean.float() * scale
        weight = (conv.weight * scale[:, None, None, None]).to(conv.weight.dtype)
        bias = shift.to(weight.dtype)
        return lambda x: conv._conv_forward(x, weight, bias).relu_()

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward


class LiteGuidance(_Guidance):
    r"""Small guidance network for a CPU: four encoder stages, three decoder stages, features at half resolution.

    Encoder stage :math:`s = 1..4` computes the map :math:`d_s` at resolution :math:`2^{-s}`. The decoder computes
    :math:`y_4 = d_4 + \mathrm{linear}(\mathrm{mean}\,d_4, \max d_4)` and
    :math:`y_s = \mathrm{conv}(d_s + \mathrm{up}(\mathrm{conv}_{1\times1}(y_{s+1})))`, with sums as skip
    connections; the features are :math:`y_1`. The mean and the maximum over the image provide global context: a small
    region of a mask is an error next to a large object, but without a large object it may be the whole object.

    Args:
        widths: channels of the four stages, each >= 1. The default network has 0.8 M parameters.
        sees_mask: whether the input has the coarse mask as its fourth channel. The features then show which side of
            an edge belongs to the object, but the network runs once per object instead of once per image.

    Shape:
        - image: (N, 3, H, W), or (N, 4, H, W) with sees_mask, RGB in [0, 1], H and W multiples of 16.
        - output: (N, widths[0], H / 2, W / 2).

    Example:
        >>> import torch
        >>> from spn import LiteGuidance
        >>> LiteGuidance()(torch.rand(1, 3, 32, 48)).shape
        torch.Size([1, 24, 16, 24])

    Reference:
        A smaller version of the symmetric encoder and decoder of Liu et al., "Learning Affinity via Spatial
        Propagation Networks", NeurIPS 2017, section 4.
    """

    stride, multiple = 2, 16

    def __init__(
        self, widths: tuple[int, int, int, int] = (24, 48, 96, 128), sees_mask: bool = False
    ) -> None:
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"widths must be four numbers >= 1, got {widths}")
        self.config = {"widths": list(widths), "sees_mask": sees_mask}
        self.sees_mask = sees_mask
        self.channels = widths[0]
        depths = (1, 1, 2, 2)  # convolutions after the strided one; they are cheap on small maps
        inputs = (4 if sees_mask else 3, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(ConvNormReLU(i, o, stride=2), *(ConvNormReLU(o, o) for _ in range(depth)))
            for i, o, depth in zip(inputs, widths, depths, strict=True)
        )
        self.context = nn.Linear(2 * widths[3], widths[3])
        self.lateral = nn.ModuleList(nn.Conv2d(widths[s + 1], widths[s], 1) for s in range(3))
        self.up = nn.ModuleList(ConvNormReLU(w, w) for w in widths[:3])

    def forward(self, image: Tensor) -> Tensor:
        x: Tensor = self.normalized(image)
        skips: list[Tensor] = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        x = self.with_context(x)
        for s in (2, 1, 0):
            x = self.up[s](doubled(self.lateral[s](x)).add_(skips[s]))
        return x

    def is_as_built(self) -> bool:
        """Whether it still consists of the original layers, without hooks."""
        layers = [*(layer for stage in self.down for layer in stage.children()), *self.up]
        return all(is_plain(stage, nn.Sequential) for stage in self.down) and all(
            isinstance(layer, ConvNormReLU) and is_plain(layer, ConvNormReLU) and layer.is_as_built()
            for layer in layers
        )

    def with_context(self, x: Tensor) -> Tensor:
        """Add the global context to the deepest stage."""
        whole = torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
        context: Tensor = self.context(whole)
        return x + context[:, :, None, None]

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward


# VGG-16 up to pool5: channels and number of convolutions of each block. Max pooling follows each block.
_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16Guidance(_Guidance):
    r"""Guidance network of the paper: VGG-16 from conv1 to pool5 as encoder, and a mirrored decoder.

    The decoder is learned from scratch. Each of its stages doubles the resolution, adds the encoder map :math:`d_s` of
    equal size, and applies the convolutions of the block in reverse order,
    :math:`y_s = \mathrm{block}_s(\mathrm{up}(y_{s+1}) + d_s)`, from :math:`y_6` = pool5 to full or half resolution.

    Args:
        weights: "imagenet" for torchvision's ImageNet weights, the path of a VGG-16 state dict, or None for random
            weights. "imagenet" requires torchvision and, on first use, internet access.
        stride: 1 for features at full resolution, 2 for half resolution.

    Shape:
        - image: (N, 3, H, W), RGB in [0, 1], H and W multiples of 32.
        - output: (N, 64, H, W), or (N, 64, H / 2, W / 2) with stride 2.

    Example:
        >>> import torch
        >>> from spn import VGG16Guidance
        >>> VGG16Guidance(weights=None)(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 64, 32, 32])

    Reference:
        Liu et al., "Learning Affinity via Spatial Propagation Networks", NeurIPS 2017, section 4; Simonyan
        and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
        configuration D.
    """

    multiple, channels = 32, 64

    def __init__(self, weights: str | os.PathLike[str] | None = "imagenet", stride: int = 1) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {stride}")
        self.stride = stride
        self.config = {"weights": None, "stride": stride}  # a checkpoint includes the weights
        down: list[nn.Module] = []  # torchvision's layout, so that its weights load by name
        up: list[nn.Module] = []
        inputs = 3
        for block, (width, depth) in enumerate(_VGG16, 1):
            for i in range(depth):
                down += [nn.Conv2d(width if i else inputs, width, 3, padding=1), nn.ReLU(inplace=False)]
            down.append(nn.MaxPool2d(2))
            if block >= stride:
                up.append(_mirrored(inputs if block > 1 else self.channels, width, depth))
            inputs = width
        self.features = nn.Sequential(*down)
        self.up = nn.ModuleList(up)
        if weights is not None:
            state = _vgg16_features(weights)
            try:
                self.features.load_state_dict(state)
            except RuntimeError as error:
                raise ValueError(
                    f"weights must be the path of a VGG-16 state dict, got {os.fspath(weights)!r} ({_one_line(error)})"
                ) from error

    def forward(self, image: Tensor) -> Tensor:
        x, skips = self.normalized(image), []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
            x = layer(x)
        skips = skips[self.stride - 1 :]
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = block(doubled(x) + skip)
        return x

    if TYPE_CHECKING:  # nn.Module.__call__ is annotated as Any
        __call__ = forward


def _mirrored(outputs: int, width: int, depth: int) -> nn.Sequential:
    """Mirror a block of VGG: ``depth`` convolutions, the last of which has the channels of the previous block."""
    layers: list[nn.Module] = []
    for i in range(depth):
        conv = nn.Conv2d(width, outputs if i == depth - 1 else width, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # damaged archives and pickles raise errors of many types
        raise ValueError(
            f"weights must be the path of a VGG-16 state dict, got {os.fspath(path)!r} ({_one_line(error)})"
        ) from error


def _one_line(error: Exception) -> str:
    """Return the type of an error and the beginning of its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _vgg16_features(weights: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Load the convolutions of a VGG-16 state dict, from a file or from torchvision's ImageNet weights."""
    if weights == "imagenet":
        try:
            from torchvision.models import VGG16_Weights  # spn itself requires only torch

            state = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        except Exception as error:  # no torchvision, no internet access or no disk space
            raise RuntimeError(
                f"ImageNet weights of VGG-16 are not available ({type(error).__name__}: {error}). "
                "Pass the path of a VGG-16 state dict, or weights=None to start from random weights."
            ) from error
    elif os.path.isfile(weights):
        state = _state_dict(weights)
    else:
        raise ValueError(
            f"weights must be 'imagenet', None or the path of a VGG-16 state dict, got {weights!r}"
        )
    prefix = "features."
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
