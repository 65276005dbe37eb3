"""Train semantic -> coarse on windows as inference makes them; resumes from its checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from constants import (
    COARSE_HISTORY,
    COARSE_PAD,
    COARSE_SEMANTIC,
    COARSE_SIZE,
    COARSE_WINDOW,
    CODES,
    RATIO,
    SEMANTIC_VOCAB,
)
from data import read_shard, training_shards
from lm import Table, Transformer, optimizers
from make_codes import load_quantizer
from tables import code_features, one_hot_features, semantic_features
from torch import nn
from torch.nn import functional
from training import parse_run, train

CROP = COARSE_HISTORY + COARSE_WINDOW
NOISE = 0.06  # share of coarse inputs replaced by other codes, so that the semantic tokens lead


class CoarseModel(nn.Module):
    """The coarse stage with structured tables. Codebooks (2, codes, width) give the features of the codes."""

    def __init__(self, embed: torch.Tensor):
        super().__init__()
        self.body = Transformer(COARSE_SIZE, causal=True)
        width = COARSE_SIZE.width
        self.semantic = Table(semantic_features(), width, 0.5)
        self.inputs = nn.ModuleList([Table(code_features(embed[k]), width, 0.5) for k in range(2)])
        self.special = Table(one_hot_features(2), width, 0.5)
        self.heads = nn.ModuleList([Table(code_features(embed[k]), width, 0.05) for k in range(2)])
        self.special_head = Table(one_hot_features(2), width, 0.05)
        semantic_times = torch.arange(COARSE_SEMANTIC) * RATIO + 1.5
        coarse_times = torch.arange(-1, CROP)
        self.body.start_on_diagonal(torch.cat([semantic_times, coarse_times]), 6.0, 1200.0, layers=2)

    def input_table(self) -> torch.Tensor:
        """(vocabulary, D)."""
        return torch.cat([self.semantic(), self.inputs[0](), self.inputs[1](), self.special()])

    def head_table(self) -> torch.Tensor:
        """(vocabulary, D); semantic classes are never asked for."""
        unused = torch.zeros(SEMANTIC_VOCAB, COARSE_SIZE.width)
        return torch.cat([unused, self.heads[0](), self.heads[1](), self.special_head()])

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (B, T) -> logits of the next token at even and odd coarse steps (B, CROP / 2, 1024 and 1026)."""
        positions = torch.arange(tokens.shape[1])
        hidden, _ = self.body(functional.embedding(tokens, self.input_table()), positions)
        hidden = hidden[:, COARSE_SEMANTIC:]
        odd = torch.cat([self.heads[1](), self.special_head()])
        return hidden[:, 0::2] @ self.heads[0]().T, hidden[:, 1::2] @ odd.T


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One sentence: semantic (T,), coarse (4 T,) flattened with offsets of the vocabulary."""

    semantic: torch.Tensor
    coarse: torch.Tensor


def load_shard(work: Path, path: Path) -> list[Spoken]:
    """Sentences of one shard of speech whose codes exist."""
    codes = np.load(work / "codes" / path.with_suffix(".npy").name)[:, :2].astype(np.int64)
    codes += SEMANTIC_VOCAB + np.array([0, CODES])
    semantics = [sentence.semantic.astype(np.int64) for sentence in read_shard(path, with_audio=False)]
    ends = np.cumsum([2 * len(semantic) for semantic in semantics])
    return [
        Spoken(semantic=torch.from_numpy(semantic), coarse=torch.from_numpy(frames.reshape(-1)))
        for semantic, frames in zip(semantics, np.split(codes, ends[:-1]), strict=True)
    ]


def window(row: Spoken, start: int, *, jump: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Semantic (60,) and coarse (180,) from semantic token `start`, padded on the right.

    With `jump` two coarse tokens are missing before the newest 60, as in the first window after a voice prompt:
    #  [c0 .. c117] [c118 c119 dropped] [c120 .. c179]
    """
    semantic = row.semantic[start : start + COARSE_SEMANTIC]
    coarse = row.coarse[RATIO * start : RATIO * start + CROP + 2]
    if jump and len(coarse) > COARSE_HISTORY:
        coarse = torch.cat([coarse[: COARSE_HISTORY - 2], coarse[COARSE_HISTORY:]])
    coarse = coarse[:CROP]
    semantic = functional.pad(semantic, (0, COARSE_SEMANTIC - len(semantic)), value=COARSE_PAD)
    return semantic, functional.pad(coarse, (0, CROP - len(coarse)), value=-1)


class Windows:
    """Draws random windows, sentences in proportion to their length; a step's draw depends on its number only."""

    def __init__(self, rows: list[Spoken], seed: int):
        self.rows = rows
        self.seed = seed
        lengths = np.array([len(row.semantic) for row in rows])
        self.share = lengths / lengths.sum()

    def draw(self, batch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (B, 60 + 1 + 179) and targets (B, 180), -1 where the speech has ended."""
        self.rng = np.random.default_rng((self.seed, step))
        semantics, targets = [], []
        for n in self.rng.choice(len(self.rows), batch, p=self.share):
            row = self.rows[n]
            last = max(len(row.semantic) - COARSE_SEMANTIC // 2, 0)
            start = 0 if self.rng.random() < 0.15 else int(self.rng.integers(last + 1))
            semantic, target = window(row, start, jump=self.rng.random() < 0.1)
            semantics.append(semantic)
            targets.append(target)
        semantic, target = torch.stack(semantics), torch.stack(targets)
        heard = target.clamp(min=SEMANTIC_VOCAB)
        offset = torch.arange(CROP) % 2 * CODES + SEMANTIC_VOCAB
        noise = torch.from_numpy(self.rng.integers(CODES, size=target.shape)) + offset
        noisy = torch.from_numpy(self.rng.random(target.shape) < NOISE)
        heard = torch.where(noisy, noise, heard)[:, :-1]
        infer = torch.full((batch, 1), COARSE_PAD + 1)
        return torch.cat([semantic, infer, heard], dim=1), target


def loss_of(model: nn.Module, tokens: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of the first and of the second codebook."""
    with torch.autocast("cpu", torch.bfloat16):
        even, odd = model(tokens)
    first = torch.where(target[:, 0::2] < 0, -1, target[:, 0::2] - SEMANTIC_VOCAB)
    second = torch.where(target[:, 1::2] < 0, -1, target[:, 1::2] - SEMANTIC_VOCAB - CODES)
    return {
        name: functional.cross_entropy(logits.float().flatten(0, 1), wanted.flatten(), ignore_index=-1)
        for name, logits, wanted in (("first", even, first), ("second", odd, second))
    }


def main() -> None:
    """Train until the asked number of steps."""
    work, run = parse_run("coarse", __doc__, steps=4000, batch=16, rate=2e-3)
    model = CoarseModel(load_quantizer(work).embed)
    rows = [row for path in training_shards(work, run.shards) for row in load_shard(work, path)]
    windows = Windows(rows, seed=7)
    print(f"{len(rows)} sentences", flush=True)
    train(model, run, lambda step: loss_of(model, *windows.draw(run.batch, step)), optimizers(model, run.rate))


if __name__ == "__main__":
    main()
