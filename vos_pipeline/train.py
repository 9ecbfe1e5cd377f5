"""Training: one loop for every net, and the foreground net's two stages (paper sections 3.1 and 3.2)."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vos_pipeline.batches import Batch, Batches, MaskedFrame
from vos_pipeline.data import Sequence
from vos_pipeline.errors import PipelineError
from vos_pipeline.files import replacing
from vos_pipeline.losses import class_balanced_loss, paired_loss
from vos_pipeline.model import ForegroundNet
from vos_pipeline.presets import Preset, Schedule, get_preset


def train(
    net: ForegroundNet,
    batches: Callable[[int], Batch],
    schedule: Schedule,
    *,
    checkpoint: Path,
    device: str = "cpu",
    precision: str = "float32",
    compiled: bool = False,
    resume: bool = False,
    distributed: bool = False,
    title: str = "training",
) -> ForegroundNet:
    """Train ``net`` in place and return it (its running average, where the schedule asks for one).

    The checkpoint is written atomically every ``schedule.checkpoint_every`` steps and at the end; with
    ``resume`` a killed training goes on from it to the same weights, and a finished one is loaded.

    Args:
        net: what to train; (N, 3, H, W) to (N, C, H, W) logits.
        batches: step to (images, labels), the same for the same step.
        schedule: steps, batch size and learning rate.
        checkpoint: file of the training's state.
        device: where to train.
        precision: of the net's arithmetic, see :func:`autocast`.
        compiled: whether torch.compile makes the net's kernels.
        resume: go on from ``checkpoint`` if it exists.
        distributed: whether all ranks of a process group train this net together.
        title: what the progress bar says.
    """
    layout = memory_format(device, precision)
    net.to(device, memory_format=layout).train()
    average = copy.deepcopy(net)
    optimizer = make_optimizer(net, schedule)
    scaler = torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")
    start = 0
    if resume and checkpoint.exists():
        state = load_checkpoint(checkpoint, device)
        start = state["step"]
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        if start < schedule.steps:
            optimizer.load_state_dict(state["optimizer"])
            scaler.load_state_dict(state["scaler"])

    distributed = distributed and dist.is_initialized()
    first = not distributed or dist.get_rank() == 0
    forward = DistributedDataParallel(net) if distributed else net
    forward = torch.compile(forward) if compiled else forward
    loss_of = paired_loss if net.paired else class_balanced_loss
    steps = tqdm(
        range(start, schedule.steps),
        desc=title,
        initial=start,
        total=schedule.steps,
        disable=not first or start == schedule.steps,  # a training that is loaded shows no bar
    )
    for step, (images, labels) in made_ahead(batches, steps):
        images = images.to(device, memory_format=layout)
        with autocast(device, precision):
            logits = forward(images)
        loss = loss_of(logits.float(), labels.to(device), schedule.reduction, schedule.balance)
        if schedule.reduction == "sum":
            # Ranks average their gradients: this makes of it the sum over a whole batch.
            loss = loss * (schedule.batch / len(images))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step) * group["factor"]
        scaler.step(optimizer)
        scaler.update()
        update_average(average, net, schedule.average, step)

        done = step + 1 == schedule.steps
        if first and (done or (step + 1) % schedule.checkpoint_every == 0):
            state = {"step": step + 1, "net": net.state_dict(), "average": average.state_dict()}
            if not done:
                state |= {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            save_checkpoint(checkpoint, state)
    net.load_state_dict(average.state_dict())
    return net.eval()


def autocast(device: str, precision: str) -> torch.autocast:
    """The context in which a net computes with ``precision``: "float32", "bfloat16" or "float16"."""
    dtype = getattr(torch, precision)
    return torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32)


def memory_format(device: str, precision: str) -> torch.memory_format:
    """Channels last, which GPUs and float32 on a CPU compute fastest with (a step of the small net: 235 ms of
    one core against 274 ms), but planes for bfloat16 on a CPU (163 ms against 212 ms)."""
    planes = torch.device(device).type == "cpu" and precision != "float32"
    return torch.contiguous_format if planes else torch.channels_last


def made_ahead(batches: Callable[[int], Batch], steps: Iterable[int]) -> Iterator[tuple[int, Batch]]:
    """Each step and its batch; the next one is made meanwhile, on a core of its own where one is spare."""
    with ThreadPoolExecutor(1) as pool:
        ahead: deque[tuple[int, Future[Batch]]] = deque()
        for step in steps:
            ahead.append((step, pool.submit(batches, step)))
            if len(ahead) > 1:
                step, batch = ahead.popleft()
                yield step, batch.result()
        for step, batch in ahead:
            yield step, batch.result()


def join_process_group(device: str) -> str:
    """Join the ranks that ``torchrun`` started, if it did; the device of this rank."""
    if "RANK" not in os.environ:
        return device
    cuda = device.startswith("cuda")
    if not dist.is_initialized():
        # Ranks that are done with their sequences wait for the others, for hours if need be.
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(days=7))
    if not cuda:
        return device
    device = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(device)
    return device


def process_rank() -> tuple[int, int]:
    """(rank, number of ranks), (0, 1) where ``torchrun`` started none."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def make_optimizer(net: ForegroundNet, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimizer that the schedule names, over the features and, at a rate of its own, the head."""
    head = {id(p) for p in net.head.parameters()}
    parameters = [
        {"params": [p for p in net.parameters() if p.requires_grad and id(p) not in head], "factor": 1.0},
        {"params": list(net.head.parameters()), "factor": schedule.head_factor},
    ]
    rates = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=schedule.momentum, **rates)
    return torch.optim.AdamW(parameters, **rates)


def learning_rate(schedule: Schedule, step: int) -> float:
    """The rate of that step (from 0)."""
    if schedule.decay == "halve":
        return schedule.learning_rate * 0.5 ** (step // schedule.halve_every)
    if schedule.decay == "cosine":
        warm = min(1.0, (step + 1) / 50)  # the first steps of AdamW know no second moments yet
        cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / schedule.steps)).item())
        return schedule.learning_rate * warm * cosine
    return schedule.learning_rate


@torch.no_grad()
def update_average(average: torch.nn.Module, net: torch.nn.Module, decay: float, step: int) -> None:
    """average <- d average + (1 - d) net, where d grows to ``decay`` so that the start does not linger."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def save_checkpoint(path: Path, state: dict) -> None:
    """Write all of it or nothing."""
    with replacing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # After a write that failed, or that Ctrl-C broke off, torch fails once more and hides the first reason.
            if isinstance(error.__context__, (OSError, KeyboardInterrupt)):
                raise error.__context__ from None
            raise


def load_checkpoint(path: Path, device: str) -> dict:
    """Read what :func:`save_checkpoint` wrote; PipelineError if it is no such file."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise PipelineError(f"cannot read {path} ({error}): delete it and run again") from error


def train_foreground(
    sequences: list[Sequence], preset: str | Preset, device: str, out: Path, resume: bool = False
) -> ForegroundNet:
    """Train the foreground net on every mask of the training sequences (section 3.1), into out/foreground.pt.

    Under ``torchrun`` all ranks train it together.

    Args:
        sequences: the training sequences; all objects of a frame are foreground.
        preset: name or constants.
        device: where to train.
        out: folder of the net.
        resume: go on from what is there.

    Raises:
        PipelineError: no sequence, or ImageNet weights that cannot be fetched.
    """
    preset = get_preset(preset)
    if not sequences:
        raise PipelineError("no frame to train on: name at least one sequence with masks")
    frames = [
        MaskedFrame(sequence, t, preset.height)
        for sequence in sequences
        for t, path in enumerate(sequence.mask_paths)
        if path is not None
    ]
    checkpoint = Path(out) / "foreground.pt"
    rank, world = process_rank()
    return train(
        initial_net(preset, known=resume and checkpoint.exists()),
        Batches(
            frames,
            preset.foreground_augmentation,
            preset.foreground.batch,
            preset.seed,
            rank=rank,
            world=world,
            device=device,
        ),
        preset.foreground,
        checkpoint=checkpoint,
        device=device,
        precision=preset.precision,
        compiled=preset.compile,
        resume=resume,
        distributed=True,
        title="foreground",
    )


def initial_net(preset: Preset, known: bool = False) -> ForegroundNet:
    """The foreground net before any training; ``known`` weights will be loaded into it anyway."""
    torch.manual_seed(preset.seed)
    return ForegroundNet(preset.backbone, pretrained=preset.pretrained and not known)


def finetune_foreground(
    net: ForegroundNet,
    sequences: list[Sequence],
    preset: str | Preset,
    device: str,
    checkpoint: Path,
    resume: bool = False,
    distributed: bool = False,
) -> ForegroundNet:
    """A copy of the foreground net, trained on with the first frames of the test sequences (section 3.2).

    Args:
        net: what :func:`train_foreground` gave.
        sequences: the test sequences; nothing but their first frame and mask is read.
        preset: name or constants.
        device: where to train.
        checkpoint: file of the fine-tuned net.
        resume: go on from what is there.
        distributed: whether all ranks of a process group train this net together.
    """
    preset = get_preset(preset)
    rank, world = process_rank() if distributed else (0, 1)
    return train(
        copy.deepcopy(net),
        Batches(
            [MaskedFrame(sequence, 0, preset.height) for sequence in sequences],
            preset.first_frames_augmentation,
            preset.first_frames.batch,
            preset.seed + 1,
            rank=rank,
            world=world,
            device=device,
        ),
        preset.first_frames,
        checkpoint=checkpoint,
        device=device,
        precision=preset.precision,
        compiled=preset.compile,
        resume=resume,
        distributed=distributed,
        title=f"{sequences[0].name} foreground" if len(sequences) == 1 else "first frames",
    )
