"""Encode the speech with the trained codec: codes (frames, 8) beside every shard."""

import argparse
from pathlib import Path

import numpy as np
import torch
from codec import CODEBOOKS, ResidualQuantizer, new_codec
from data import read_shard, training_shards
from train_codec import INPUT_GAIN
from transformers import EncodecModel


def load_codec(work: Path) -> EncodecModel:
    """The trained codec as transformers runs it, for signals at the teacher's level times INPUT_GAIN.

    The decoder is the one trained on after the codes were frozen, where there is one.
    """
    state = torch.load(work / "codec.pt")
    model = new_codec()
    model.load_state_dict(state["codec"])
    if (work / "decoder.pt").exists():
        model.decoder.load_state_dict(torch.load(work / "decoder.pt")["decoder"])
    for k in range(CODEBOOKS):
        codebook = model.quantizer.layers[k].codebook
        codebook.embed.copy_(state["quantizer"]["embed"][k])
        codebook.embed_avg.copy_(codebook.embed)
        codebook.cluster_size.fill_(1.0)
    return model.eval()


def load_quantizer(work: Path) -> ResidualQuantizer:
    """The trained quantizer alone."""
    quantizer = ResidualQuantizer()
    quantizer.load_state_dict(torch.load(work / "codec.pt")["quantizer"])
    return quantizer


@torch.no_grad()
def encode(model: EncodecModel, quantizer: ResidualQuantizer, audio: np.ndarray) -> np.ndarray:
    """int16 audio (640 T,) -> codes (2 T, 8) int16."""
    signal = torch.from_numpy(audio.astype(np.float32) / 32768 * INPUT_GAIN)
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encoder(signal[None, None]).float()
    return quantizer.encode(latents[0].T).numpy().astype(np.int16)


@torch.no_grad()
def decode(model: EncodecModel, codes: np.ndarray) -> np.ndarray:
    """Codes (frames, K) -> audio at the teacher's level, float32."""
    latents = model.quantizer.decode(torch.from_numpy(codes.astype(np.int64).T).unsqueeze(1))
    return model.decoder(latents)[0, 0].numpy() / INPUT_GAIN


def main() -> None:
    """Encode the held-out shard and the first training shards; codes that exist are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--shards", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, quantizer = load_codec(args.work), load_quantizer(args.work)
    (args.work / "codes").mkdir(exist_ok=True)
    for path in [args.work / "speech" / "heldout.npz", *training_shards(args.work, args.shards)]:
        target = args.work / "codes" / path.with_suffix(".npy").name
        if target.exists():
            continue
        rows = [encode(model, quantizer, row.audio) for row in read_shard(path, with_audio=True)]
        np.save(target, np.concatenate(rows))
        print(path.name, sum(map(len, rows)), flush=True)


if __name__ == "__main__":
    main()
