"""The loop that all trainings share: optimizers, schedule, log, checkpoints that resume."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from data import save_atomically
from lm import set_rate
from torch import nn

SECONDS_BETWEEN_CHECKPOINTS = 120

Losses = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training needs beside the model: its checkpoint file, lengths and rates."""

    path: Path
    steps: int
    batch: int
    rate: float
    shards: int


def parse_run(
    name: str, description: str | None, *, steps: int, batch: int, rate: float, shards: int = 37
) -> tuple[Path, Run]:
    """Read the command line of a trainer: the work folder and the run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--shards", type=int, default=shards)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(7)
    path = args.work / f"{name}.pt"
    return args.work, Run(path=path, steps=args.steps, batch=args.batch, rate=args.rate, shards=args.shards)


def adam(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """The optimizer of the codec's two halves."""
    return [torch.optim.Adam(model.parameters(), lr=rate, betas=(0.8, 0.99))]


def train(model: nn.Module, run: Run, losses_at: Callable[[int], Losses], chosen: list[torch.optim.Optimizer]) -> None:
    """Minimise the sum of losses_at(step); go on from the checkpoint where there is one."""
    step = 0
    if run.path.exists():
        state = torch.load(run.path)
        model.load_state_dict(state["model"])
        step = state["step"]
        for optimizer, saved in zip(chosen, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    kept = told = time.time()
    counted, sums = 0, {}
    print(f"from step {step} to {run.steps}", flush=True)
    while step < run.steps:
        set_rate(chosen, step, run.steps, run.rate)
        losses = losses_at(step)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()
        step, counted = step + 1, counted + 1
        sums = {name: sums.get(name, 0.0) + value.item() for name, value in losses.items()}
        if step % 50 == 0:
            text = " ".join(f"{name} {value / counted:.3f}" for name, value in sums.items())
            print(f"{step} {text} {(time.time() - told) / counted:.3f} s/step", flush=True)
            told, counted, sums = time.time(), 0, {}
        if time.time() - kept > SECONDS_BETWEEN_CHECKPOINTS or step == run.steps:
            kept = time.time()
            saved = [optimizer.state_dict() for optimizer in chosen]
            save_atomically({"model": model.state_dict(), "optimizers": saved, "step": step}, run.path)
