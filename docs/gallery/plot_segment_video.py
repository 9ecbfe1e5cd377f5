"""
Segment your own video
======================

From a video and the mask of its first frame, ``spn-vos segment`` computes the masks of all other frames:

.. code-block:: sh

    spn-vos segment clip.mp4 --mask first.png --out out

This example draws a clip of a cat that passes in front of a cup of coffee, and runs the command on it.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import skimage.data

from vos_pipeline.__main__ import main
from vos_pipeline.data import write_video
from vos_pipeline.settings import PRESETS

FRAMES, WIDTH, HEIGHT = 16, 214, 120
folder = Path(tempfile.mkdtemp())

# %%
# In the clip, the cat moves, turns and grows while the camera pans.

room = cv2.resize(skimage.data.coffee(), (300, 200), interpolation=cv2.INTER_AREA)
cat = cv2.resize(skimage.data.chelsea()[20:290, 30:420], (78, 54), interpolation=cv2.INTER_AREA)
oval = cv2.ellipse(np.zeros((54, 78), np.uint8), (39, 27), (34, 24), 0, 0, 360, 255, -1)


def draw(u):
    """Return the frame (H, W, 3) and the mask (H, W) at time u in [0, 1]."""
    top, left = int(30 + 20 * u), int(10 + 50 * u)
    pose = cv2.getRotationMatrix2D((39, 27), 30 * np.sin(4 * u), 1 + 0.3 * u)
    pose[:, 2] += 5 + 100 * u, 30 + 25 * np.sin(6 * u)
    mask = cv2.warpAffine(oval, pose, (WIDTH, HEIGHT))
    soft = cv2.GaussianBlur(mask, (0, 0), 0.6)[..., None] / 255
    picture = room[top : top + HEIGHT, left : left + WIDTH] * (1 - soft)
    return (picture + cv2.warpAffine(cat, pose, (WIDTH, HEIGHT)) * soft).astype(np.uint8), mask > 127


pictures, truth = zip(*(draw(t / (FRAMES - 1)) for t in range(FRAMES)), strict=True)
write_video(folder / "clip.mp4", pictures, rate=12)
cv2.imwrite(str(folder / "first.png"), truth[0].astype(np.uint8))

# %%
# ``main`` runs the command as a shell would. The networks are tuned on the first frame alone, so no training data are
# needed. To save time, the example adds a preset for this clip, which is only 120 pixels high: the preset ``demo``
# without resizing to a height of 240 pixels and with fewer steps. For your own video, use ``--preset small``, the
# default.

demo = PRESETS["demo"]
PRESETS["clip"] = replace(
    demo,
    name="clip",
    height=None,
    first_frames=replace(demo.first_frames, steps=40),
    instance=replace(demo.instance, steps=120),
)
command = f"segment {folder}/clip.mp4 --mask {folder}/first.png --out {folder}/out --preset clip"
main(command.split())

# %%
# The printed table has no J and F, because a video of your own has no ground truth. It shows the time of each stage in
# seconds per frame and object. The masks are indexed PNG files in ``out/labels``, with one folder per stage; those of
# the default filter are in ``out/labels/flow``. ``out/report.html`` shows every frame after every stage.
#
# The clip was drawn, so its exact masks are known:

masks = [
    cv2.imread(str(folder / f"out/labels/flow/clip/{t:05d}.png"), cv2.IMREAD_GRAYSCALE) > 0
    for t in range(FRAMES)
]
overlap = [(mask & true).sum() / (mask | true).sum() for mask, true in zip(masks, truth, strict=True)]

figure, axes = plt.subplots(2, 2, figsize=(8, 5), layout="constrained")
for axis, t in zip(axes.T, (6, 13), strict=True):
    dimmed = np.where(masks[t][..., None], pictures[t], 40 + pictures[t] // 5)
    axis[0].imshow(pictures[t])
    axis[0].set_title(f"frame {t}")
    axis[1].imshow(dimmed)
    axis[1].contour(masks[t], [0.5], colors="gold", linewidths=1)
    axis[1].set_title(f"intersection over union {overlap[t]:.2f}")
    for row in axis:
        row.axis("off")
print(f"mean over frames 1 to {FRAMES - 1}: {np.mean(overlap[1:]):.3f}")
plt.show()
