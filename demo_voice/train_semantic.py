"""Train text -> semantic: spelling, durations and pitch, with the teacher's alignments as a guide; resumes."""

from pathlib import Path

import numpy as np
import torch
from constants import (
    CHARACTERS,
    MAX_SEMANTIC_TOKENS,
    SEMANTIC_INFER,
    SEMANTIC_PAD,
    SEMANTIC_SIZE,
    SEMANTIC_VOCAB,
    TEXT_LENGTH,
    TEXT_OFFSET,
    TEXT_PAD,
)
from data import Sentence, read_shard, training_shards
from lm import Table, Transformer, optimizers
from tables import one_hot_features, semantic_features
from torch import nn
from torch.nn import functional
from training import parse_run, train

GUIDED_LAYER = 2
GUIDED_HEADS = 2  # the first looks at the characters being spoken, the second at the end of their word
TOKENS_PER_CHARACTER = 2.26
POOL = 12  # batches drawn together and sorted by length, so that little is padding
FULL_TEXT_FROM = 0.9  # share of the steps after which texts are padded to their full 128 characters


def text_ids(text: str) -> np.ndarray:
    """Tokenizer ids of a text, as the exported tokenizer gives them."""
    return np.array([CHARACTERS.find(c) if c in CHARACTERS else len(CHARACTERS) for c in text.lower()])


class SemanticModel(nn.Module):
    """The semantic stage with structured tables."""

    def __init__(self):
        super().__init__()
        self.body = Transformer(SEMANTIC_SIZE, causal=True)
        width = SEMANTIC_SIZE.width
        self.semantic = Table(semantic_features(), width, 0.5)
        self.special = Table(one_hot_features(SEMANTIC_INFER + 1 - SEMANTIC_VOCAB), width, 0.5)
        self.head = Table(semantic_features(), width, 0.05)
        self.end_head = Table(one_hot_features(1), width, 0.05)
        times = torch.cat([torch.arange(TEXT_LENGTH) * TOKENS_PER_CHARACTER + 3, torch.arange(MAX_SEMANTIC_TOKENS + 1)])
        self.body.start_on_diagonal(times, 20.0, 2000.0, layers=2)

    def input_table(self) -> torch.Tensor:
        """(input vocabulary, D): semantic classes, pad, characters, text pad, infer."""
        return torch.cat([self.semantic(), self.special()])

    def head_table(self) -> torch.Tensor:
        """(semantic classes + end, D)."""
        return torch.cat([self.head(), self.end_head()])

    def forward(
        self, text: torch.Tensor, history: torch.Tensor, spoken: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Text and history (B, N), infer token and speech (B, S) -> logits (B, S, classes), guided attention logits."""
        table = self.input_table()
        x = functional.embedding(text, table) + functional.embedding(history, table)
        x = torch.cat([x, functional.embedding(spoken, table)], dim=1)
        positions = torch.cat([torch.arange(text.shape[1]), torch.arange(spoken.shape[1]) + TEXT_LENGTH])
        hidden, seen = self.body(x, positions, watch_layer=GUIDED_LAYER, watched=GUIDED_HEADS)
        return hidden[:, text.shape[1] :] @ self.head_table().T, seen[:, :, text.shape[1] :]


def word_end(text: str, at: int) -> int:
    """Index of the first character after the word that holds character `at`."""
    while at < len(text) and (text[at].isalpha() or text[at] == "'"):
        at += 1
    return at


class Batches:
    """Batches of sentences of similar length; the batch of a step depends on its number only."""

    def __init__(self, rows: list[Sentence], batch: int, seed: int):
        self.rows, self.batch, self.seed = rows, batch, seed
        self.pool_number, self.pool = -1, []

    def chosen(self, step: int) -> list[int]:
        """Sentence numbers of the step's batch."""
        if step // POOL != self.pool_number:
            self.pool_number = step // POOL
            rng = np.random.default_rng((self.seed, self.pool_number))
            drawn = rng.choice(len(self.rows), self.batch * POOL, replace=False)
            drawn = drawn[np.argsort([len(self.rows[n].semantic) for n in drawn], kind="stable")]
            self.pool = rng.permutation(drawn.reshape(POOL, self.batch))
        return list(self.pool[step % POOL])

    def draw(self, step: int, *, full_text: bool) -> dict[str, torch.Tensor]:
        """Tensors of one batch: text, history, spoken (inputs), target, and first and last character by head."""
        rng = np.random.default_rng((self.seed, step, 1))
        rows = [self.rows[n] for n in self.chosen(step)]
        columns = TEXT_LENGTH if full_text else min(TEXT_LENGTH, max(len(row.text) for row in rows) + 3)
        length = max(len(row.semantic) for row in rows) + 1
        batch = len(rows)
        text = np.full((batch, columns), TEXT_PAD)
        history = np.full((batch, columns), SEMANTIC_PAD)
        spoken = np.full((batch, length), SEMANTIC_PAD)
        target = np.full((batch, length), -1)
        spans = np.zeros((GUIDED_HEADS, batch, length, 2), np.int64)
        for b, row in enumerate(rows):
            count = len(row.semantic)
            text[b, : len(row.text)] = text_ids(row.text) + TEXT_OFFSET
            spoken[b, 0], spoken[b, 1 : count + 1] = SEMANTIC_INFER, row.semantic
            target[b, :count], target[b, count] = row.semantic, SEMANTIC_PAD
            ends = [word_end(row.text, high) for high in range(len(row.text))]
            spans[0, b, :count] = row.span
            spans[1, b, :count] = np.array(ends)[row.span[:, 1], None]
            spans[:, b, count] = len(row.text)
            if rng.random() < 0.2:
                # a voice prompt: any other sentence, it must not disturb
                other = self.rows[rng.integers(len(self.rows))].semantic[-columns:]
                history[b, : len(other)] = other
        noisy = (rng.random(spoken.shape) < 0.03) & (spoken < SEMANTIC_VOCAB)
        spoken = np.where(noisy, rng.integers(SEMANTIC_VOCAB, size=spoken.shape), spoken)
        arrays = {"text": text, "history": history, "spoken": spoken, "target": target, "spans": spans}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def guide_loss(seen: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean -log of the attention that each guided head spends on its characters.

    seen (B, heads, S, N + S): logits before the causal mask.
    """
    columns, length = batch["text"].shape[1], seen.shape[2]
    seen = seen.float()
    hidden = torch.arange(columns + length) > torch.arange(length).unsqueeze(1) + columns
    everything = seen.masked_fill(hidden, -1e4).logsumexp(-1)
    low, high = batch["spans"].clamp(max=columns - 1).permute(3, 1, 0, 2).unsqueeze(-1)
    column = torch.arange(columns)
    # a token whose word was not found in the text has an empty span: its first character stands for it
    high = torch.maximum(low, high)
    wanted = seen[..., :columns].masked_fill((column < low) | (column > high), -1e4).logsumexp(-1)
    used = (batch["target"] >= 0).unsqueeze(1)
    return ((everything - wanted) * used).sum() / used.sum() / GUIDED_HEADS


def load_rows(work: Path, shards: int) -> list[Sentence]:
    """Sentences that fit into the windows."""
    rows = [row for path in training_shards(work, shards) for row in read_shard(path, with_audio=False)]
    return [row for row in rows if len(row.text) < TEXT_LENGTH and len(row.semantic) < MAX_SEMANTIC_TOKENS]


def main() -> None:
    """Train until the asked number of steps."""
    work, run = parse_run("semantic", __doc__, steps=4000, batch=24, rate=2e-3)
    rows = load_rows(work, run.shards)
    print(f"{len(rows)} sentences", flush=True)
    model = SemanticModel()
    batches = Batches(rows, run.batch, seed=7)

    def losses_at(step: int) -> dict[str, torch.Tensor]:
        batch = batches.draw(step, full_text=step >= FULL_TEXT_FROM * run.steps)
        with torch.autocast("cpu", torch.bfloat16):
            logits, seen = model(batch["text"], batch["history"], batch["spoken"])
        speech = functional.cross_entropy(logits.float().flatten(0, 1), batch["target"].flatten(), ignore_index=-1)
        return {"speech": speech, "guide": 0.2 * guide_loss(seen, batch)}

    train(model, run, losses_at, optimizers(model, run.rate))


if __name__ == "__main__":
    main()
