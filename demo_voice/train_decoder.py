"""Go on with the codec's decoder alone, from frozen codes: the tokens of the other stages stay valid; resumes."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from codec import CODEBOOKS, FRAME_RATE_HZ, SpeechLoss
from data import save_atomically, training_shards
from make_codes import load_codec
from phones import SAMPLE_RATE
from train_codec import INPUT_GAIN

HOP = SAMPLE_RATE // FRAME_RATE_HZ
FRAMES = 60  # 0.8 s a crop
SECONDS_BETWEEN_CHECKPOINTS = 90


def load_pairs(work: Path, shards: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (frames, 8) and audio (320 frames,) int16 of the encoded shards, one after the other."""
    codes, audio = [], []
    for path in training_shards(work, shards):
        codes_path = work / "codes" / path.with_suffix(".npy").name
        if codes_path.exists():
            codes.append(np.load(codes_path))
            with np.load(path) as shard:
                audio.append(shard["audio"])
    return torch.from_numpy(np.concatenate(codes)), torch.from_numpy(np.concatenate(audio))


def draw(codes: torch.Tensor, audio: torch.Tensor, batch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (B, FRAMES, 8), and the audio (B, samples) at the codec's level."""
    rng = np.random.default_rng((9, step))
    starts = rng.integers(len(codes) - FRAMES, size=batch)
    pieces = torch.stack([codes[start : start + FRAMES] for start in starts]).long()
    signals = torch.stack([audio[start * HOP : (start + FRAMES) * HOP] for start in starts])
    return pieces, signals.float() / 32768 * INPUT_GAIN


def latents_of(embed: torch.Tensor, codes: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Sum of the first depth[b] code vectors: (B, width, FRAMES)."""
    vectors = torch.stack([embed[k][codes[:, :, k]] for k in range(CODEBOOKS)], dim=1)
    used = (torch.arange(CODEBOOKS) < depth.unsqueeze(1)).float()
    return (vectors * used[:, :, None, None]).sum(dim=1).transpose(1, 2)


def main() -> None:
    """Train until the asked number of steps; writes decoder.pt, which make_codes.load_codec prefers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--shards", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(9)
    codes, audio = load_pairs(args.work, args.shards)
    embed = torch.load(args.work / "codec.pt")["quantizer"]["embed"]
    decoder = load_codec(args.work).decoder.train()
    for module in decoder.modules():
        if hasattr(module, "pad_mode"):
            module.pad_mode = "constant"
    optimizer = torch.optim.Adam(decoder.parameters(), lr=args.rate, betas=(0.8, 0.99))
    loss, step, path = SpeechLoss(), 0, args.work / "decoder.pt"
    if path.exists():
        state = torch.load(path)
        step = state["step"]
        optimizer.load_state_dict(state["optimizer"])
    began, first, kept, sums = time.time(), step, time.time(), {}
    print(f"{len(codes) / FRAME_RATE_HZ / 60:.0f} minutes of speech, from step {step} to {args.steps}", flush=True)
    while step < args.steps:
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1.0, (step + 1) / 50, max(0.03, (1 - step / args.steps) / 0.6))
        pieces, target = draw(codes, audio, args.batch, step)
        depth = torch.where(torch.rand(args.batch) < 0.5, 2, CODEBOOKS)
        with torch.autocast("cpu", torch.bfloat16):
            output = decoder(latents_of(embed, pieces, depth)).squeeze(1)
        terms = loss(output.float(), target, 0.7)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 2.0)
        optimizer.step()
        step += 1
        sums = {name: sums.get(name, 0.0) + value.item() for name, value in terms.items()}
        if step % 50 == 0:
            text = " ".join(f"{name} {value / 50:.3f}" for name, value in sums.items())
            print(f"{step} {text} {(time.time() - began) / (step - first):.3f} s/step", flush=True)
            sums = {}
        if time.time() - kept > SECONDS_BETWEEN_CHECKPOINTS or step == args.steps:
            kept = time.time()
            state = {"decoder": decoder.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            save_atomically(state, path)


if __name__ == "__main__":
    main()
