"""Run by torchrun in a test: every rank trains the tiny refiner and writes its final weights."""

import sys
from pathlib import Path

import torch
from spn_cases import TINY, photographs, tiny_refiner

from vos_pipeline.refiner import Composites, train_refiner
from vos_pipeline.training import join_process_group, process_rank

if __name__ == "__main__":
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    device = join_process_group("cpu")
    refiner = tiny_refiner()
    losses = train_refiner(refiner, Composites(photographs(), TINY.size), out, TINY, device=device)
    torch.save({"losses": losses, "weights": refiner.state_dict()}, out / f"rank{process_rank()[0]}.pt")
