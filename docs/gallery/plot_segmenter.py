"""
Segment a video frame by frame
==============================

:class:`vos_pipeline.Segmenter` is created from a first frame and its mask. It then segments one frame after another,
from a camera, a decoder or an array, without any files. This example segments a clip of two crossing objects.
"""

from dataclasses import replace

import cv2
import matplotlib.pyplot as plt
import numpy as np
import skimage.data

from vos_pipeline import Segmenter
from vos_pipeline.settings import PRESETS

FRAMES, WIDTH, HEIGHT = 14, 192, 108
gravel = cv2.cvtColor(cv2.resize(skimage.data.gravel(), (256, 256)), cv2.COLOR_GRAY2RGB)
cat = cv2.resize(skimage.data.chelsea()[20:290, 30:420], (52, 36), interpolation=cv2.INTER_AREA)
cup = cv2.resize(skimage.data.coffee()[80:320, 180:460], (44, 38), interpolation=cv2.INTER_AREA)


def camera():
    """Yield frames, uint8 RGB (H, W, 3), and exact labels: 1 is a cat, 2 a cup that passes in front of it."""
    for t in range(FRAMES):
        u = t / (FRAMES - 1)
        frame = gravel[20 : 20 + HEIGHT, int(30 * u) : int(30 * u) + WIDTH].copy()
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for label, picture, x, y in ((1, cat, 20 + 90 * u, 40), (2, cup, 130 - 110 * u, 46)):
            height, width = picture.shape[:2]
            box = slice(y, y + height), slice(int(x), int(x) + width)
            oval = np.zeros((height, width), np.uint8)
            cv2.ellipse(oval, (width // 2, height // 2), (width // 2 - 2, height // 2 - 2), 0, 0, 360, 1, -1)
            frame[box][oval > 0] = picture[oval > 0]
            labels[box][oval > 0] = label
        yield frame, labels


# %%
# Creating the segmenter tunes its networks on the first frame. With the preset ``small`` this takes minutes on a CPU.
# For this small clip, fewer steps suffice, so the example changes the preset ``demo``.

video = camera()
first_frame, first_labels = next(video)
demo = PRESETS["demo"]
preset = replace(
    demo,
    height=None,
    first_frames=replace(demo.first_frames, steps=30),
    instance=replace(demo.instance, steps=100),
)
segmenter = Segmenter(first_frame, first_labels, preset=preset, device="cpu")

# %%
# ``segmenter.step`` segments a frame and returns labels with the values of the first mask. ``step_scores`` does the
# same, but returns the scores of every stage: one map per object, in [0, 1]. ``segmenter.labels`` converts scores to
# labels.

results = []
for frame, truth in video:
    scores = segmenter.step_scores(frame)
    labels = {stage: segmenter.labels(maps) for stage, maps in scores.items()}
    results.append((frame, truth, labels))

print({stage: maps.shape for stage, maps in scores.items()})
print({stage: f"{1e3 * seconds / len(results):.0f} ms" for stage, seconds in segmenter.seconds.items()})

# %%
# The clip was drawn, so its exact labels are known. The table shows the mean intersection over union after each stage.
# On this small clip, the SPN does not improve the scores of the instance nets. For results on real video, see
# :doc:`/pipeline_results`.


def overlap(labels, truth):
    """Return the mean intersection over union of the two objects."""
    return np.mean(
        [((labels == k) & (truth == k)).sum() / ((labels == k) | (truth == k)).sum() for k in (1, 2)]
    )


for stage in scores:
    print(f"{stage:15} {np.mean([overlap(labels[stage], truth) for _, truth, labels in results]):.3f}")

figure, axes = plt.subplots(2, 3, figsize=(9, 4), layout="constrained")
for column, t in zip(axes.T, (2, 6, 11), strict=True):
    frame, _, labels = results[t]
    for axis, stage in zip(column, ("instance nets", segmenter.final), strict=True):
        axis.imshow(frame // 2)
        axis.imshow(np.ma.masked_equal(labels[stage], 0), cmap="Set1", vmin=1, vmax=9, alpha=0.7)
        axis.set_title(f"frame {t + 1}, {stage}")
        axis.axis("off")
plt.show()
