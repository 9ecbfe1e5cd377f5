"""Training of the refiner: ``train spn``, on pictures with masks or on composites that cost nothing."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from spn.guidance import LiteGuidance, VGG16Guidance
from spn.refiner import SPNRefiner
from vos_pipeline.composites import Composites
from vos_pipeline.data import list_images, read_image, read_labels
from vos_pipeline.degrade import degrade
from vos_pipeline.errors import PipelineError
from vos_pipeline.train import load_checkpoint, save_checkpoint

__all__ = [
    "MaskedPictures",
    "SPNTraining",
    "add_arguments",
    "bundled_photographs",
    "main_train",
    "refinement_loss",
    "train",
]

# Photographs in scikit-image's wheel: public domain, CC0 or without known copyright restrictions.
BUNDLED = (
    "astronaut", "brick", "camera", "cell", "chelsea", "clock", "coffee", "coins",
    "grass", "gravel", "hubble_deep_field", "immunohistochemistry", "retina", "rocket",
)  # fmt: skip


@dataclass(frozen=True)
class SPNTraining:
    """Constants of one training. How the weights that ship with spn were made: spn/weights/README.md."""

    guidance: str = "lite"  # "lite" (which sees the mask too), "lite-image" or "vgg16"
    form: str = "embedded"
    steps: int = 10_000
    batch: int = 4
    size: int = 160  # side of the crops in pixels
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    average: float = 0.998  # decay of the moving average of the weights, which is what is kept
    boundary_weight: float = 3.0  # extra weight of pixels near the true outline; 0 is the paper's plain loss
    precision: str = "float32"  # or "bfloat16": autocast, twice as fast where the processor has it
    seed: int = 0
    checkpoint_every: int = 200


def bundled_photographs() -> list[np.ndarray]:
    """The free photographs that come with scikit-image, each (H, W, 3) uint8 RGB."""
    import skimage.data

    pictures = [getattr(skimage.data, name)() for name in BUNDLED]
    return [np.repeat(p[..., None], 3, 2) if p.ndim == 2 else p[..., :3] for p in pictures]


class MaskedPictures(Dataset):
    """Random crops of pictures with masks; the object is a random label, the rest is background (paper, 4.1).

    Args:
        images: folder of pictures.
        masks: folder of indexed or 0/255 masks with the pictures' names.
        size: side of a crop.
        seed: with the index of a sample, the only source of randomness.
    """

    def __init__(self, images: str | Path, masks: str | Path, size: int = 160, seed: int = 0) -> None:
        by_name = {path.stem: path for path in list_images(Path(masks))}
        self.pairs = [
            (path, by_name[path.stem]) for path in list_images(Path(images)) if path.stem in by_name
        ]
        if not self.pairs:
            raise PipelineError(f"no picture in {images} has a mask of the same name in {masks}")
        self.size, self.seed = size, seed

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, index))
        for _ in range(20):
            image_path, mask_path = self.pairs[rng.integers(len(self.pairs))]
            image, labels = read_image(image_path), read_labels(mask_path)
            objects = np.setdiff1d(labels, (0, 255))
            if len(objects) == 0 or image.shape[:2] != labels.shape:
                continue
            mask = (labels == rng.choice(objects)).astype(np.float32)
            image, mask = self._crop(image, mask, rng)
            coarse = degrade(mask, rng, image)
            if (coarse > 0.5).any() and (coarse <= 0.5).any() and mask.any():
                return image, coarse, mask
        raise PipelineError(
            f"no crop with an object found in 20 tries: are the masks of {mask_path.parent} empty?"
        )

    def _crop(
        self, image: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A square about a pixel of the object, scaled, mirrored and relit."""
        s = self.size
        y, x = np.argwhere(mask > 0)[rng.integers(np.count_nonzero(mask))]
        scale, mirror = np.exp(rng.uniform(-0.4, 0.4)), rng.choice([-1, 1])
        centre = rng.uniform(0.2, 0.8, 2) * s
        matrix = np.float32(
            [[scale * mirror, 0, centre[0] - scale * mirror * x], [0, scale, centre[1] - scale * y]]
        )
        image = cv2.warpAffine(image, matrix, (s, s), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpAffine(mask, matrix, (s, s), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3))
        return np.clip(image / 255 * gain, 0, 1).astype(np.float32), mask


def refinement_loss(
    refined: Tensor, mask: Tensor, boundary_weight: float = 0.0, coarse: Tensor | None = None, radius: int = 4
) -> Tensor:
    r"""Two-class cross-entropy, with more weight where an outline is or was.

    .. math:: L = \frac{\sum_i w_i\, [-m_i \log r_i - (1 - m_i) \log (1 - r_i)]}{\sum_i w_i}, \quad
        w_i = 1 + \beta\,[\text{i within radius of the outline of } m \text{ or of } c > 1/2]

    The outline of c matters where the coarse mask has islands and holes of its own.

    Args:
        refined: r, (N, K, H, W) in [0, 1].
        mask: m, (N, K, H, W) in [0, 1].
        boundary_weight: beta >= 0; 0 gives the paper's loss.
        coarse: c, (N, K, H, W) in [0, 1], or None for the true outline alone.
        radius: in pixels.
    """
    loss = F.binary_cross_entropy(refined.float().clamp(1e-5, 1 - 1e-5), mask, reduction="none")
    if not boundary_weight:
        return loss.mean()
    near = _near_outline(mask, radius)
    if coarse is not None:
        near = torch.maximum(near, _near_outline((coarse > 0.5).float(), radius))
    weight = 1 + boundary_weight * near
    return (weight * loss).sum() / weight.sum()


def _near_outline(mask: Tensor, radius: int) -> Tensor:
    return _spread(mask, radius) + _spread(1 - mask, radius) - 1


def _spread(x: Tensor, radius: int) -> Tensor:
    """Maximum over squares, one axis after the other."""
    side = 2 * radius + 1
    return F.max_pool2d(F.max_pool2d(x, (side, 1), 1, (radius, 0)), (1, side), 1, (0, radius))


def train(
    refiner: SPNRefiner,
    samples: Dataset | Composites,
    out: str | Path,
    config: SPNTraining = SPNTraining(),
    *,
    device: str = "cpu",
    resume: bool = False,
    workers: int = 0,
) -> list[float]:
    """Trains a refiner in place; writes ``out/spn.pt`` (state), ``out/spn.safetensors`` (averaged weights).

    A sample is a function of its index alone and the state holds everything else, so a training that was
    stopped and resumed goes through the same losses as one that was not.

    Args:
        refiner: what to train; holds the averaged weights at the end.
        samples: ``samples[i]`` for any i >= 0: picture (S, S, 3), coarse and exact mask (S, S), all
            float32 in [0, 1].
        out: folder to write to.
        config: see :class:`SPNTraining`.
        device: where to train.
        resume: go on from ``out/spn.pt`` if it is there.
        workers: processes that prepare samples.

    Returns:
        The loss of every step done in this call.
    """
    state_file, weights_file = Path(out) / "spn.pt", Path(out) / "spn.safetensors"
    refiner.to(device, memory_format=torch.channels_last).train()
    average = {name: value.detach().clone() for name, value in refiner.state_dict().items()}
    optimizer = torch.optim.AdamW(
        refiner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    start = 0
    if resume and state_file.exists():
        state = load_checkpoint(state_file, device)
        if state["config"] != asdict(config):
            raise PipelineError(
                f"{state_file} is of a training with other settings: delete it or choose another folder"
            )
        refiner.load_state_dict(state["refiner"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]

    losses = []
    progress = tqdm(_batches(samples, config, start, workers), desc="spn", initial=start, total=config.steps)
    for step, (image, coarse, mask) in enumerate(progress, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        with torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            refined = refiner(image.to(device), coarse.to(device))
        loss = refinement_loss(refined, mask.to(device), config.boundary_weight, coarse.to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(refiner.parameters(), 1.0)
        optimizer.step()
        _update_average(average, refiner, config.average, step)
        losses.append(loss.item())
        progress.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}")
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            state = {
                "config": asdict(config),
                "step": step + 1,
                "refiner": refiner.state_dict(),
                "average": average,
            }
            save_checkpoint(state_file, {**state, "optimizer": optimizer.state_dict()})
            _export(refiner, average, weights_file)
    refiner.load_state_dict(average)
    refiner.eval()
    return losses


def _batches(samples, config: SPNTraining, start: int, workers: int) -> Iterator[list[Tensor]]:
    """Batches from step ``start`` on, in order."""
    rest = Subset(samples, range(start * config.batch, config.steps * config.batch))
    for image, coarse, mask in DataLoader(rest, config.batch, num_workers=workers):
        yield image.permute(0, 3, 1, 2), coarse.unsqueeze(1), mask.unsqueeze(1)


def learning_rate(config: SPNTraining, step: int) -> float:
    """Warm-up over 100 steps, then a cosine to 1 % of the rate."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * cosine)


@torch.no_grad()
def _update_average(average: dict[str, Tensor], refiner: nn.Module, decay: float, step: int) -> None:
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in refiner.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _export(refiner: SPNRefiner, average: dict[str, Tensor], path: Path) -> None:
    """Writes the averaged weights in half precision, and leaves the refiner as it was."""
    current = {name: value.clone() for name, value in refiner.state_dict().items()}
    refiner.load_state_dict(average)
    refiner.save_pretrained(path, dtype=torch.float16)
    refiner.load_state_dict(current)


def build_refiner(config: SPNTraining) -> SPNRefiner:
    """The untrained refiner of a configuration, the same for the same seed."""
    torch.manual_seed(config.seed)
    stride = 1 if config.form == "direct" else 2
    if config.guidance == "vgg16":
        guidance = VGG16Guidance(weights=None, stride=stride)
    else:
        guidance = LiteGuidance(sees_mask=config.guidance == "lite")
    return SPNRefiner(guidance, form=config.form)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``train spn`` to a parser."""
    default = SPNTraining()
    parser.add_argument("--out", required=True, help="folder for spn.safetensors and the training's state")
    parser.add_argument(
        "--images", help="folder of pictures; without it, composites of free photographs are drawn"
    )
    parser.add_argument("--masks", help="folder of masks with the pictures' names")
    parser.add_argument(
        "--photos", help="folder of photographs to draw composites from, beside the bundled ones"
    )
    parser.add_argument("--init", help="refiner to start from: 'lite' or a .safetensors file")
    parser.add_argument("--guidance", choices=("lite", "lite-image", "vgg16"), default=default.guidance)
    parser.add_argument("--form", choices=("embedded", "direct"), default=default.form)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=default.precision)
    for name in ("steps", "batch", "size", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--boundary-weight", type=float, default=default.boundary_weight)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare samples")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true")


def main_train(args: argparse.Namespace) -> None:
    """Runs ``train spn`` with the options of :func:`add_arguments`."""
    fields = (
        "guidance",
        "form",
        "steps",
        "batch",
        "size",
        "seed",
        "learning_rate",
        "boundary_weight",
        "precision",
    )
    config = SPNTraining(**{name: getattr(args, name) for name in fields})
    if bool(args.images) != bool(args.masks):
        raise PipelineError("--images and --masks belong together: give both, or neither for free composites")
    if args.images:
        samples = MaskedPictures(args.images, args.masks, config.size, config.seed)
    else:
        photographs = bundled_photographs() + [
            read_image(p) for p in (list_images(Path(args.photos)) if args.photos else [])
        ]
        samples = Composites(photographs, config.size, config.seed)
    refiner = SPNRefiner.from_pretrained(args.init) if args.init else build_refiner(config)
    train(refiner, samples, args.out, config, device=args.device, resume=args.resume, workers=args.workers)
