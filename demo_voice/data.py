"""Reading the shards of speech, and writing files whole."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One spoken sentence: semantic (T,), span (T, 2) of characters, audio int16 (640 T,) or None."""

    text: str
    semantic: np.ndarray
    span: np.ndarray
    audio: np.ndarray | None


def read_shard(path: Path, *, with_audio: bool) -> list[Sentence]:
    """All sentences of one shard."""
    with np.load(path) as shard:
        ends = np.cumsum(shard["lengths"])
        starts = ends - shard["lengths"]
        audio = shard["audio"] if with_audio else None
        semantic, span, texts = shard["semantic"], shard["span"], shard["text"]
    return [
        Sentence(
            text=str(texts[n]),
            semantic=semantic[a:b],
            span=span[a:b],
            audio=None if audio is None else audio[a * 640 : b * 640],
        )
        for n, (a, b) in enumerate(zip(starts, ends, strict=True))
    ]


def training_shards(work: Path, count: int) -> list[Path]:
    """The first `count` training shards that exist."""
    return sorted((work / "speech").glob("train*.npz"))[:count]


def load_audio(work: Path, shards: int) -> torch.Tensor:
    """All audio of the training shards in a row, int16."""
    parts = []
    for path in training_shards(work, shards):
        with np.load(path) as shard:
            parts.append(shard["audio"])
    return torch.from_numpy(np.concatenate(parts))


def save_atomically(state: object, path: Path) -> None:
    """torch.save into a neighbour, then rename: a killed process leaves the old file."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)
