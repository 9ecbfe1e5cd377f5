"""Refiners of a few channels, for the tests of the refiner."""

import torch

from spn.guidance import LiteGuidance
from spn.refiner import SPNRefiner

FORMS = ("embedded", "embedded, guidance sees the mask", "direct")


def small(form="embedded", **options):
    torch.manual_seed(0)
    guidance = LiteGuidance(widths=(8, 8, 8, 8), sees_mask="sees" in form)
    return SPNRefiner(guidance, form=form.split(",")[0], hidden=8, **options).eval()
