"""Coarse codes as the trained coarse stage guesses them, each from true semantic tokens and true history.

The decoder is tuned on them (train_decoder.py), so that it forgives the mistakes it will hear.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from constants import COARSE_HISTORY, COARSE_PAD, COARSE_WINDOW, CODES, RATIO, SEMANTIC_VOCAB
from data import training_shards
from make_codes import load_quantizer
from train_coarse import CROP, CoarseModel, Spoken, load_shard, window

TEMPERATURE = 0.5
STEP = COARSE_WINDOW // RATIO  # semantic tokens from a window to the next


@torch.no_grad()
def guesses(model: CoarseModel, semantic: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Windows (B, 60) and (B, CROP), -1 after the end -> sampled codes (B, CROP / 2, 2)."""
    heard = target.clamp(min=SEMANTIC_VOCAB)[:, :-1]
    tokens = torch.cat([semantic, torch.full((len(target), 1), COARSE_PAD + 1), heard], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
    drawn = [
        torch.distributions.Categorical(logits=each[..., :CODES].float() / TEMPERATURE).sample() for each in logits
    ]
    return torch.stack(drawn, dim=2)


def sample_sentence(model: CoarseModel, row: Spoken) -> np.ndarray:
    """Sampled codes (frames, 2) of one sentence; every window but the first gives its newest frames only."""
    starts = range(0, max(len(row.semantic) - COARSE_HISTORY // RATIO, 1), STEP)
    pairs = [window(row, start, jump=False) for start in starts]
    drawn = guesses(model, *(torch.stack(each) for each in zip(*pairs, strict=True)))
    parts = [drawn[0], *(each[COARSE_HISTORY // 2 : CROP // 2] for each in drawn[1:])]
    return torch.cat(parts)[: 2 * len(row.semantic)].numpy().astype(np.int16)


def main() -> None:
    """Write WORK/sampled/SHARD.npy of the first shards; those that exist are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(11)
    model = CoarseModel(load_quantizer(args.work).embed)
    model.load_state_dict(torch.load(args.work / "coarse.pt")["model"])
    (args.work / "sampled").mkdir(exist_ok=True)
    for path in training_shards(args.work, args.shards):
        target = args.work / "sampled" / path.with_suffix(".npy").name
        if not target.exists():
            rows = load_shard(args.work, path)
            np.save(target, np.concatenate([sample_sentence(model, row) for row in rows]))
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
