"""Refiners with few channels, for the tests of the refiner."""

import torch

from spn.guidance import LiteGuidance
from spn.refiner import SPNRefiner

FORMS = ("embedded", "embedded, guidance sees the mask", "direct", "direct, convex")


def small(form="embedded", **options):
    torch.manual_seed(0)
    guidance = LiteGuidance(widths=(8, 8, 8, 8), sees_mask="sees" in form)
    refiner = SPNRefiner(
        guidance, form=form.split(",")[0], hidden=8, convex="convex" in form, **options
    ).eval()
    if form == "direct":  # its gates start near zero; larger ones imitate a trained refiner
        with torch.no_grad():
            refiner.propagation.gates[0].weight.mul_(300)
    return refiner
