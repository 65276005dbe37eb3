"""Codes (frames, 8) beside every shard, from the latents of features.py; the quantizer is learned first."""

import argparse
from pathlib import Path

import numpy as np
import torch
from codec import ResidualQuantizer
from data import read_shard, save_atomically, training_shards
from features import BANDS, latents
from make_speech import UNTAUGHT

FITTED_SHARDS = 3  # half an hour, 140 frames a code


def shard_latents(path: Path) -> torch.Tensor:
    """Latents (frames, width) of all sentences of a shard."""
    rows = [latents(row.audio / 32768) for row in read_shard(path, with_audio=True)]
    return torch.from_numpy(np.concatenate(rows))


def load_quantizer(work: Path) -> ResidualQuantizer:
    """The quantizer that make_codes.py learned."""
    quantizer = ResidualQuantizer()
    quantizer.load_state_dict(torch.load(work / "quantizer.pt"))
    return quantizer


def learn_quantizer(work: Path) -> None:
    """k-means on the first shards; the first codebook holds the envelope only."""
    torch.manual_seed(6)
    quantizer = ResidualQuantizer()
    quantizer.fit(torch.cat([shard_latents(path) for path in training_shards(work, FITTED_SHARDS)]), BANDS)
    save_atomically(quantizer.state_dict(), work / "quantizer.pt")


def main() -> None:
    """Encode the untaught shards and the first training shards; codes that exist are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=37)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not (args.work / "quantizer.pt").exists():
        learn_quantizer(args.work)
    quantizer = load_quantizer(args.work)
    (args.work / "codes").mkdir(exist_ok=True)
    untaught = [args.work / "speech" / f"{name}.npz" for name in UNTAUGHT]
    for path in [*untaught, *training_shards(args.work, args.shards)]:
        target = args.work / "codes" / path.with_suffix(".npy").name
        if target.exists():
            continue
        wanted = shard_latents(path)
        codes = quantizer.encode(wanted)
        left = (wanted - quantizer.decode(codes)).square().mean().sqrt()
        np.save(target, codes.numpy().astype(np.int16))
        print(path.name, len(codes), f"error {left:.3f}", flush=True)


if __name__ == "__main__":
    main()
