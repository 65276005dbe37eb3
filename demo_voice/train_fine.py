"""Train coarse -> fine: codebooks 2 to 7, each from those before it, on windows as inference makes them; resumes."""

from pathlib import Path

import numpy as np
import torch
from codec import CODEBOOKS
from constants import CODES, FINE_HISTORY, FINE_SIZE, FINE_VOCAB, FINE_WINDOW
from data import read_shard, training_shards
from lm import Table, Transformer, optimizers
from make_codes import load_quantizer
from tables import code_features
from torch import nn
from torch.nn import functional
from training import parse_run, train

COARSE = 2
NOISE = 0.04  # share of the given codes replaced by others: inference gives predicted ones


class FineModel(nn.Module):
    """The fine stage; the head of codebook k is the input table of codebook k, as in Bark."""

    def __init__(self, embed: torch.Tensor):
        super().__init__()
        self.body = Transformer(FINE_SIZE, causal=False)
        pad = torch.zeros(1, embed.shape[2] + 2)
        features = [torch.cat([code_features(embed[k]), pad]) for k in range(CODEBOOKS)]
        self.tables = nn.ModuleList([Table(rows, FINE_SIZE.width, 0.08) for rows in features])
        self.body.start_on_diagonal(torch.arange(FINE_WINDOW), 4.0, 400.0, layers=2)

    def forward(self, codes: torch.Tensor, k: int) -> torch.Tensor:
        """Codes (B, T, 8), pads where unknown -> logits (B, T, 1025) of codebook k."""
        tables = [table() for table in self.tables[: k + 1]]
        x = sum(functional.embedding(codes[:, :, i], table) for i, table in enumerate(tables))
        hidden, _ = self.body(x, torch.arange(codes.shape[1]))
        return hidden @ tables[k].T


def load_codes(work: Path, shards: int) -> list[torch.Tensor]:
    """Codes (frames, 8) of every sentence whose shard is encoded."""
    rows = []
    for path in training_shards(work, shards):
        codes_path = work / "codes" / path.with_suffix(".npy").name
        if codes_path.exists():
            codes = torch.from_numpy(np.load(codes_path).astype(np.int64))
            frames = [2 * len(sentence.semantic) for sentence in read_shard(path, with_audio=False)]
            rows += torch.split(codes, frames)
    return rows


def draw(rows: list[torch.Tensor], batch: int, step: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Inputs (B, 256, 8), targets (B, 256) of one codebook, and its number.

    Codebook k is known in the window's first `known` frames only (none, a history, or any number).
    """
    rng = np.random.default_rng((8, step))
    k = int(rng.integers(COARSE, CODEBOOKS))
    inputs = torch.full((batch, FINE_WINDOW, CODEBOOKS), CODES)
    target = torch.full((batch, FINE_WINDOW), -1)
    for b in range(batch):
        row = rows[rng.integers(len(rows))]
        start = 0 if rng.random() < 0.5 else int(rng.integers(max(1, len(row) - FINE_HISTORY)))
        piece = row[start : start + FINE_WINDOW]
        noisy = torch.from_numpy(rng.random(piece.shape) < NOISE)
        noise = torch.from_numpy(rng.integers(CODES, size=piece.shape))
        inputs[b, : len(piece)] = torch.where(noisy, noise, piece)
        known = (0, 0, FINE_HISTORY, int(rng.integers(FINE_WINDOW)))[rng.integers(4)]
        inputs[b, known:, k] = CODES
        inputs[b, :, k + 1 :] = CODES
        target[b, : len(piece)] = piece[:, k]
    return inputs, target, k


def main() -> None:
    """Train until the asked number of steps."""
    work, run = parse_run("fine", __doc__, steps=2000, batch=16, rate=2e-3)
    model = FineModel(load_quantizer(work).embed)
    rows = load_codes(work, run.shards)
    print(f"{len(rows)} sentences", flush=True)

    def losses_at(step: int) -> dict[str, torch.Tensor]:
        inputs, target, k = draw(rows, run.batch, step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs, k)
        loss = functional.cross_entropy(
            logits[..., :FINE_VOCAB].float().flatten(0, 1), target.flatten(), ignore_index=-1
        )
        return {"fine": loss}

    train(model, run, losses_at, optimizers(model, run.rate))


if __name__ == "__main__":
    main()
