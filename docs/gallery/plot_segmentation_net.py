"""
Add the SPN to a torchvision segmentation network
=================================================

LR-ASPP with MobileNetV3 :cite:`howard2019searching` predicts masks at an eighth of the resolution and interpolates
them, so their boundaries are soft. This example adds a :class:`spn.SPNRefiner` after it with one line. The masks
become sharper at once. Gradients pass through the refiner, so both can then be trained together.
"""

import cv2
import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import spn

torch.manual_seed(0)

# %%
# The task is to segment bricks. Each scene is drawn when it is needed: a wavy patch of tinted brick wall over a crop
# of a photograph. The refiner was trained on other synthetic shapes over these photographs, so the task suits it. For
# its results on real masks, see :doc:`/refiner`.

SIZE = 96
PHOTOS = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()]
BRICKS = np.repeat(skimage.data.brick()[..., None], 3, axis=2)


def crop(photo, rng):
    side = int(rng.uniform(1, 2) * SIZE)
    y, x = rng.integers(0, photo.shape[0] - side), rng.integers(0, photo.shape[1] - side)
    return cv2.resize(photo[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA) / 255


def draw(rng):
    """Return an image (H, W, 3) in [0, 1] and its mask (H, W) of 0 and 1."""
    angle = np.linspace(0, 2 * np.pi, 200)
    waves = sum(rng.uniform(0, 0.25) * np.cos(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5))
    radius = SIZE * rng.uniform(0.22, 0.34) * (1 + waves)
    outline = SIZE * rng.uniform(0.35, 0.65, 2) + radius[:, None] * np.stack(
        [np.cos(angle), np.sin(angle)], 1
    )
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, shift=4)
    soft = cv2.GaussianBlur(mask.astype(float), (0, 0), 0.6)[..., None]
    bricks = crop(BRICKS, rng) * rng.uniform(0.4, 1.3, 3)
    return (1 - soft) * crop(PHOTOS[rng.integers(len(PHOTOS))], rng) + soft * bricks.clip(0, 1), mask


def batch(count, rng):
    pictures, masks = zip(*(draw(rng) for _ in range(count)), strict=True)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    return images, torch.from_numpy(np.stack(masks)).long()


def train(model, steps, learning_rate):
    rng = np.random.default_rng(steps)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in range(steps):
        image, target = batch(8, rng)
        loss = F.nll_loss(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


# %%
# The network is built by torchvision, with random weights and log-probabilities as output. With only eighty training
# steps, the statistics of batch normalisation must adapt faster than by default.


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1

    def forward(self, image):
        return self.net(image)["out"].log_softmax(1)


segmenter = Segmenter()
train(segmenter, steps=80, learning_rate=5e-3)
segmenter.eval()

# %%
# ``Refined`` applies the SPN to the output of the same network.


class Refined(nn.Module):
    def __init__(self, segmenter):
        super().__init__()
        self.segmenter = segmenter
        self.refine = spn.SPNRefiner.from_pretrained("lite")  # the added line

    def forward(self, image):
        foreground = self.refine(image, self.segmenter(image).exp()[:, 1:])
        return torch.cat([1 - foreground, foreground], 1).clamp(1e-4, 1).log()


refined = Refined(segmenter)

image, target = batch(32, np.random.default_rng(1))


def predict(model):
    with torch.no_grad():
        return model(image).exp()[:, 1]


stages = {"LR-ASPP": predict(segmenter), "+ SPN as shipped": predict(refined)}
train(refined, steps=20, learning_rate=1e-3)
stages["+ SPN, trained together"] = predict(refined)

# %%
# The figure shows three of 32 scenes that were not used for training. The titles contain the mean intersection over
# union of all 32 scenes.


def mean_iou(probability):
    found, bricks = probability > 0.5, target == 1
    return ((found & bricks).sum((1, 2)) / (found | bricks).sum((1, 2))).mean().item()


figure, axes = plt.subplots(3, 4, figsize=(10, 7.8), layout="constrained")
columns = [("image", image.permute(0, 2, 3, 1))]
columns += [(f"{name}: {mean_iou(probability):.3f}", probability) for name, probability in stages.items()]
for column, (title, pictures) in zip(axes.T, columns, strict=True):
    column[0].set_title(title, fontsize=11)
    for axis, picture in zip(column, pictures, strict=False):
        axis.imshow(picture, vmin=0, vmax=1)
        axis.axis("off")
plt.show()
