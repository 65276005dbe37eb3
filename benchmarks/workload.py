"""The clips that every contender makes, the checkpoint they are made with, and how figures are printed."""

import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np

SIZES = {"bark": (24, 16, 1024), "bark-small": (12, 12, 768), "tiny": None}
STAGES = ("semantic", "coarse", "fine", "audio")


def clip_lengths(clips: int, longest: int) -> list[int]:
    """Semantic tokens of each clip: drawn evenly from 60..500 (or the model's cap), always the same ones."""
    low, high = min(60, longest // 2), min(500, longest)
    return np.random.default_rng(7).integers(low, high + 1, clips).tolist()


def write_checkpoint(folder: str, model: str) -> None:
    """Random weights at a model's real size whose end token never wins: its head row is zero."""
    from bark_model.checkpoint import save
    from bark_model.random_checkpoint import TINY, bark_preset, random_tensors, write_random

    size = SIZES[model]
    config = TINY if size is None else bark_preset(*size)
    write_random(folder, TINY, voices=0)  # for its tokenizer; the weights are replaced
    tensors = random_tensors(config, seed=3)
    tensors["semantic.lm_head.weight"][config.generation.semantic_pad_token] = 0
    save(folder, config, tensors)


def seconds(function: Callable[[], object], *, calls: int = 5, enough_s: float = 0.5) -> float:
    """Median duration of a call that waits for its result, after one call that warms up."""
    function()
    taken: list[float] = []
    while len(taken) < calls and sum(taken) < enough_s:
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; numbers with three significant digits."""
    lines = [list(columns), *([_shown(cell) for cell in row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _shown(cell: object) -> str:
    if cell is None:
        return ""
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"


def machine(device: str) -> str:
    """One line: processor, cores, accelerator, versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "torch", "transformers"))
    return f"{_processor()}, {os.cpu_count()} cores, device {device}; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def gibibytes(count: int | None) -> float | None:
    return None if count is None else count / 2**30
