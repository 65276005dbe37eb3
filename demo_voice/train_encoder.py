"""Train the codec's encoder to find the latents of features.py in the waveform; resumes."""

from pathlib import Path

import numpy as np
import torch
from codec import INPUT_GAIN, new_codec, zero_padded
from data import training_shards
from features import HOP
from make_codes import shard_latents
from training import adam, parse_run, train

FRAMES, SKIPPED = 75, 8  # one second a crop; its first frames lack their past


def load_pairs(work: Path, shards: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (frames, width) and audio (320 frames,) int16 of the first shards."""
    paths = training_shards(work, shards)
    audio = [np.load(path)["audio"] for path in paths]
    return torch.cat([shard_latents(path) for path in paths]), torch.from_numpy(np.concatenate(audio))


def main() -> None:
    """Train until the asked number of steps."""
    work, run = parse_run("encoder", __doc__, steps=2500, batch=8, rate=1e-3, shards=12)
    wanted, audio = load_pairs(work, run.shards)
    encoder = zero_padded(new_codec().encoder)

    def losses_at(step: int) -> dict[str, torch.Tensor]:
        starts = np.random.default_rng((10, step)).integers(len(wanted) - FRAMES, size=run.batch)
        signals = torch.stack([audio[start * HOP : (start + FRAMES) * HOP] for start in starts])
        target = torch.stack([wanted[start : start + FRAMES] for start in starts])
        with torch.autocast("cpu", torch.bfloat16):
            found = encoder(signals.unsqueeze(1).float() / 32768 * INPUT_GAIN).transpose(1, 2)
        error = (found.float() - target)[:, SKIPPED:].square()
        return {"bands": error[..., :-4].mean(), "source": error[..., -4:].mean()}

    train(encoder, run, losses_at, adam(encoder, run.rate))


if __name__ == "__main__":
    main()
