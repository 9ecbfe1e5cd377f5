"""Typical calls of the package, which mypy checks in `make lint`. This file is never run."""

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import spn


class OwnGuidance(nn.Module):
    """Satisfies the guidance interface without deriving from a class of spn.guidance."""

    channels, stride, multiple = 8, 1, 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.conv(image)
        return features


def operators(x: Tensor, gates: Tensor, lambdas: Tensor) -> None:
    assert_type(spn.propagate(x, gates[:, 0], "left_to_right", source=lambdas[:, 0], normalize="abs"), Tensor)
    assert_type(spn.propagate_four_way(x, gates, source=lambdas, merge=None), Tensor)
    assert_type(spn.normalize_gates(gates, "unit"), Tensor)
    assert_type(spn.reference.propagate_four_way(x, gates), Tensor)
    assert_type(spn.Propagate("top_to_bottom")(x, gates[:, 2], source=None), Tensor)
    assert_type(spn.FourWayPropagate(merge="mean")(x, gates, lambdas), Tensor)


def refiners(image: Tensor, coarse: Tensor) -> None:
    refiner = spn.SPNRefiner.from_pretrained("lite", tile=512)
    assert_type(refiner, spn.SPNRefiner)
    assert_type(refiner(image, coarse, logits=True), Tensor)
    assert_type(refiner.gates(image, coarse), Tensor)
    assert_type(refiner.eval(), spn.SPNRefiner)
    refiner.save_pretrained("mine.safetensors", dtype=torch.float16)

    assert_type(spn.LiteGuidance()(image), Tensor)
    for guidance in (spn.LiteGuidance(sees_mask=True), spn.VGG16Guidance(weights=None), OwnGuidance()):
        spn.SPNRefiner(guidance, form="direct", tile=None)
    spn.SPNRefiner.from_pretrained("mine.safetensors", guidance=OwnGuidance())


def layers_of_other_libraries(x: Tensor, g: Tensor) -> None:
    assert_type(spn.compat.GateRecurrent2dnoind(True, False)(x, g, g, g), Tensor)
    assert_type(
        spn.compat.GateRecurrent2dnoind(horizontal=True, reverse=False)(X=x, G1=g, G2=g, G3=g), Tensor
    )
    assert_type(spn.compat.GateRecurrent2dnoind(2)(x, g, g, g, g), Tensor)
    layers: list[spn.compat.GateRecurrent2dnoind] = [spn.compat.GateRecurrent2dnoind(items_each_chunk=2)]
    layers[0].eval()
    spn.compat.GateRecurrent2dnoind(2)(x, g, g, g)  # type: ignore[call-arg]
    spn.compat.GateRecurrent2dnoind(True, False)(x, g, g, g, g)  # type: ignore[call-arg]


def no_guidance() -> None:
    spn.SPNRefiner(nn.Conv2d(3, 8, 3))  # type: ignore[arg-type]  # mypy reports an unused ignore as an error
    spn.propagate_four_way(torch.rand(1), torch.rand(1), merge=True)  # type: ignore[arg-type]


assert_type(spn.show_config(), str)
assert_type(spn.__version__, str)
