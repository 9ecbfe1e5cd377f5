"""The loss of eq. (1), for two and more classes."""

import math

import pytest
import torch

from vos_pipeline.nets import class_balanced_loss


def test_equals_a_hand_computation():
    # One of four pixels is foreground: w = 1/4. Logits (0, log 3) give p_fg = 3/4, (0, 0) give 1/2.
    logits = torch.tensor([[0.0, math.log(3)], [0, 0], [0, 0], [0, 0]]).T.reshape(1, 2, 2, 2)
    target = torch.tensor([[[1, 0], [0, 0]]])
    expected = -(3 / 4) * math.log(3 / 4) - 3 * (1 / 4) * math.log(1 / 2)
    assert class_balanced_loss(logits, target, "sum").item() == pytest.approx(expected)
    assert class_balanced_loss(logits, target, "mean").item() == pytest.approx(expected / 4)


def test_weights_are_computed_per_image():
    logits = torch.randn(2, 2, 5, 6)
    target = torch.zeros(2, 5, 6, dtype=torch.bool)
    target[0, :1], target[1, :, :4] = True, True
    together = class_balanced_loss(logits, target, "sum")
    apart = sum(class_balanced_loss(logits[i : i + 1], target[i : i + 1], "sum") for i in range(2))
    torch.testing.assert_close(together, apart)


def test_both_classes_have_the_same_total_weight():
    """At p = 1/2 everywhere the foreground's share of the loss is 1/2, however small the object."""
    logits = torch.zeros(1, 2, 20, 20, requires_grad=True)
    target = torch.zeros(1, 20, 20, dtype=torch.long)
    target[0, 3, 3] = 1
    class_balanced_loss(logits, target, "sum").backward()
    foreground = logits.grad[0, 1, 3, 3].abs()
    background = logits.grad[0, 1].abs().sum() - foreground
    torch.testing.assert_close(foreground, background)


def test_weights_of_several_objects():
    logits = torch.zeros(1, 3, 1, 4)
    target = torch.tensor([[[0, 0, 1, 2]]])
    # 1 / n = 1/2, 1, 1: the weights are 1/5, 2/5, 2/5.
    expected = math.log(3) * (2 / 5 + 2 / 5 + 2 / 5)
    assert class_balanced_loss(logits, target, "sum").item() == pytest.approx(expected)


def test_without_balance_all_pixels_have_the_same_weight():
    logits, target = torch.randn(2, 3, 6, 7), torch.randint(3, (2, 6, 7))
    target[0] = 1  # one image has only one class
    expected = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(class_balanced_loss(logits, target, balance=0.0), expected)


@pytest.mark.parametrize("balance", [0.5, 1.0])
@pytest.mark.parametrize("only", [0, 1])
def test_an_image_of_one_class_contributes_nothing(only, balance):
    """Without foreground, w = |fg| / (|fg| + |bg|) and thus the background's weight is 0; without background, 1 - w."""
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    loss = class_balanced_loss(logits, torch.full((1, 4, 4), only), "sum", balance)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_an_image_without_foreground_adds_nothing_to_a_batch():
    # The first image gives 3/4 log 4/3 + 3 (1/4) log 2 as in the hand computation, and the second gives nothing.
    logits = torch.zeros(2, 2, 2, 2)
    logits[0, 1, 0, 0], logits[1, 1] = math.log(3), 5.0
    target = torch.tensor([[[1, 0], [0, 0]], [[0, 0], [0, 0]]])
    expected = (3 / 4) * math.log(4 / 3) + (3 / 4) * math.log(2)
    assert class_balanced_loss(logits, target, "sum").item() == pytest.approx(expected)
    assert class_balanced_loss(logits, target, "mean").item() == pytest.approx(expected / 8)


def test_a_missing_object_does_not_affect_the_other_weights():
    logits, target = torch.randn(1, 3, 5, 6), torch.zeros(1, 5, 6, dtype=torch.long)
    target[0, :2] = 2
    weights = torch.tensor([12.0, 0, 18]) / 30  # each weight is the share of the other class
    expected = torch.nn.functional.cross_entropy(logits, target, weights, reduction="sum")
    torch.testing.assert_close(class_balanced_loss(logits, target, "sum"), expected)


@pytest.mark.parametrize(
    ("shape", "reduction", "says"), [((1, 4, 5), "mean", "target must be"), ((1, 4, 4), "none", "reduction")]
)
def test_wrong_input(shape, reduction, says):
    with pytest.raises(ValueError, match=says):
        class_balanced_loss(torch.zeros(1, 2, 4, 4), torch.zeros(shape), reduction)
