"""Word errors of the codec's decoder on sentences it was not taught, from the codes of make_codes.py."""

import argparse
from pathlib import Path

import numpy as np
import torch
from codec import CODEBOOKS, decode, load_codec
from data import read_shard
from listen import Listener, Score
from make_speech import UNTAUGHT


def main() -> None:
    """Print the rates and what was misheard, with all codebooks and with the coarse two; 0 is the teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--list", choices=UNTAUGHT, default="development")
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--codebooks", type=int, nargs="+", default=[CODEBOOKS, 2])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    listener, model = Listener(args.work, args.threads), load_codec(args.work)
    rows = read_shard(args.work / "speech" / f"{args.list}.npz", with_audio=True)[: args.sentences]
    ends = np.cumsum([2 * len(row.semantic) for row in rows])
    codes = np.split(np.load(args.work / "codes" / f"{args.list}.npy")[: ends[-1]], ends[:-1])
    for count in args.codebooks:
        score = Score()
        for row, frames in zip(rows, codes, strict=True):
            audio = row.audio / 32768 if count == 0 else decode(model, frames[:, :count])
            score.add(listener.hear(audio), row.text)
        print(f"{count} codebooks: {score}", *score.lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
