"""Word errors of the codec on a few held-out sentences, with all codebooks and with the coarse two."""

import argparse
from pathlib import Path

from codec import CODEBOOKS
from data import read_shard
from listen import Listener, Score
from make_codes import decode, encode, load_codec, load_quantizer


def main() -> None:
    """Print the rates and what was misheard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--codebooks", type=int, nargs="+", default=[CODEBOOKS, 2])
    args = parser.parse_args()
    listener = Listener(args.work)
    model, quantizer = load_codec(args.work), load_quantizer(args.work)
    rows = read_shard(args.work / "speech" / "heldout.npz", with_audio=True)[: args.sentences]
    for count in args.codebooks:
        score = Score()
        for row in rows:
            audio = row.audio / 32768 if count == 0 else decode(model, encode(model, quantizer, row.audio)[:, :count])
            score.add(listener.hear(audio), row.text)
        print(f"{count} codebooks: {score}", *score.lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
