"""
Depth completion by propagation
===============================

A depth sensor measures few points, but a camera shows every edge. In this example 1 % of the disparities of an image
are known. :func:`spn.propagate_four_way` propagates them to the other pixels, less strongly where the colour changes.
The influence of the colour is learned in seconds, from the known points alone.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from scipy.interpolate import griddata

import spn

torch.manual_seed(0)

# %%
# The data are a photograph of the Middlebury 2014 stereo benchmark :cite:`scharstein2014high` and its disparities, at
# half the size. In the array ``truth``, pixels without a measurement have the value 0. About one pixel in a hundred is
# known; all other pixels with a measurement are used for the comparison at the end.

photo, _, disparity = skimage.data.stereo_motorcycle()
truth = torch.from_numpy(np.nan_to_num(disparity, posinf=0)).float()[None, None, ::2, ::2]  # (1, 1, H, W)
image = F.interpolate(
    torch.from_numpy(photo.copy()).permute(2, 0, 1)[None] / 255, truth.shape[-2:], mode="area"
)
known = (torch.rand_like(truth) < 0.01) & (truth > 0)

# %%
# The gates of a pixel are a softmax over the colour similarity to its three neighbours on the previous line. A fourth
# entry of the softmax belongs to no neighbour. It makes the three gates sum to less than one, so that distant points
# count less. Five numbers are learned: the influence of colour, one bias for each tap, and one for the fourth entry.
# The gates of known pixels are zero, so these pixels keep their values.

NEIGHBOURS = [
    [(-1, -1), (0, -1), (1, -1)],  # left to right: the taps -1, 0, +1 lie in the column to the left
    [(-1, 1), (0, 1), (1, 1)],
    [(-1, -1), (-1, 0), (-1, 1)],  # top to bottom: in the row above
    [(1, -1), (1, 0), (1, 1)],
]


def colour_distance(image):
    """Return the distance to each neighbour: (N, 3, H, W) -> (N, 4, 3, H, W)."""
    height, width = image.shape[-2:]
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    distances = [
        (image - padded[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]).norm(dim=1)
        for taps in NEIGHBOURS
        for y, x in taps
    ]
    return torch.stack(distances, 1).unflatten(1, (4, 3))


class Completion(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.colour = torch.nn.Parameter(torch.tensor(3.0))
        self.taps = torch.nn.Parameter(torch.zeros(4))

    def forward(self, distance, values, known):
        likeness = self.taps[:3].view(3, 1, 1) - self.colour.exp() * distance
        nobody = self.taps[3].expand_as(likeness[:, :, :1])
        weights = torch.cat([likeness, nobody], 2).softmax(2)[:, :, :3] * ~known[:, None]
        # Values and ones are propagated with the same weights; their quotient is a mean of the known values.
        sources = torch.cat([values, torch.ones_like(values)], 1) * known
        sums = spn.propagate_four_way(
            sources, weights.unsqueeze(3), source=torch.ones_like(weights[:, :, :1]), merge="sum"
        )
        return sums[:, :1] / (sums[:, 1:] + 1e-12)


# %%
# Each training step hides a fifth of the known points and predicts them from the others.

model = Completion()
optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
distance = colour_distance(image)
for _ in range(60):
    hidden = torch.rand_like(truth) < 0.2
    guess = model(distance, truth, known & ~hidden)
    loss = (guess - truth)[known & hidden].abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    completed = model(distance, truth, known)

# %%
# For comparison, a method that does not use the image: linear interpolation between the known points.

at = known[0, 0].nonzero().numpy()
grid = np.moveaxis(np.indices(truth.shape[-2:]), 0, -1)
linear = griddata(at, truth[known].numpy(), grid, "linear")
nearest = griddata(at, truth[known].numpy(), grid, "nearest")
linear = torch.from_numpy(np.where(np.isnan(linear), nearest, linear))[None, None]


def mean_error(guess):
    return (guess - truth)[(truth > 0) & ~known].abs().mean().item()


points = image.clone()
points[0][:, known[0, 0]] = torch.tensor([1.0, 0.9, 0.0])[:, None]
panels = [
    ("photograph, known points", points[0].permute(1, 2, 0)),
    ("ground truth (black: unknown)", truth),
    (f"linear interpolation: mean error {mean_error(linear):.2f} pixels", linear),
    (f"propagated: mean error {mean_error(completed):.2f} pixels", completed),
]
figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
for axis, (title, picture) in zip(axes.flat, panels, strict=True):
    axis.imshow(picture.squeeze(), cmap="magma", vmin=0, vmax=60)
    axis.set_title(title)
    axis.axis("off")
plt.show()
