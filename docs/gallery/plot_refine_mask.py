"""
Refine a mask in ten lines
==========================

This example sharpens a coarse mask with :class:`spn.SPNRefiner`. A network of stride 32 reduces this image of 512 x
512 pixels to 16 x 16 cells, so its mask cannot be finer than these cells. The refiner restores the boundary: it
propagates the mask along the surfaces in the image and stops at edges. The shipped checkpoint was trained on
synthetic shapes and knows no object classes.
"""

# sphinx_gallery_thumbnail_number = 2

import matplotlib.pyplot as plt
import skimage.data
import torch
import torch.nn.functional as F

import spn

# %%
# The coarse mask imitates the output of such a network: each digit is the share of a cell, in ninths, that the
# astronaut covers. Interpolate it to the size of the image, load the refiner and call it.

CELLS = """
    0000003410000000 0000069980000000 0000299993000000 0000079991000000
    0000259930000000 0002999930000000 0006999992000000 0069999997100000
    0599999999700000 0899999999910000 1999999999942100 3999999999999940
    3999999999999992 3999999999999994 2999999999999997 1999999999999999
"""
cells = torch.tensor([[int(digit) / 9 for digit in row] for row in CELLS.split()])[None, None]
photo = torch.from_numpy(skimage.data.astronaut().copy())
image = photo.permute(2, 0, 1)[None] / 255  # (1, 3, 512, 512), RGB in [0, 1]
coarse = F.interpolate(cells, image.shape[-2:], mode="bilinear")  # (1, 1, 512, 512), scores in [0, 1]

refine = spn.SPNRefiner.from_pretrained("lite")
with torch.no_grad():
    refined = refine(image, coarse)

# %%
# Cut the astronaut out with each mask, on a pale background:


def cut_out(mask: torch.Tensor) -> torch.Tensor:
    return torch.lerp(torch.full_like(image, 0.96), image, mask)[0].permute(1, 2, 0).clamp(0, 1)


blocks = F.interpolate(cells, image.shape[-2:], mode="nearest")
panels = {"photograph": photo, "mask of 16 x 16 cells": cut_out(blocks), "refined": cut_out(refined)}
figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), layout="constrained")
for axis, (title, picture) in zip(axes, panels.items(), strict=True):
    axis.imshow(picture)
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %%
# The next figure shows both masks in one image, coarse on the left and refined on the right:

both = torch.cat([cut_out(blocks)[:, :230], cut_out(refined)[:, 230:]], 1)
figure_of_both, axis = plt.subplots(figsize=(5, 4), layout="constrained")
axis.imshow(both)
axis.axvline(229.5, color="0.4", linewidth=1)
axis.axis("off")
plt.show()
