"""Train the codec's decoder as a vocoder of the codes, from all eight codebooks or the coarse two; resumes."""

from pathlib import Path

import numpy as np
import torch
from codec import CODEBOOKS, INPUT_GAIN, ResidualQuantizer, SpeechLoss, new_codec, zero_padded
from data import training_shards
from features import HOP
from make_codes import load_quantizer
from training import adam, parse_run, train

COARSE = 2
FRAMES = 60  # 0.8 s a crop
RAMP = (300, 800)  # steps over which log mel comes in and the waveform, which starts the training, steps back
LOG_WEIGHT, WAVE_WEIGHT = 0.6, 0.25


def load_frames(work: Path, shards: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (frames, 8) and audio (320 frames,) int16 of the first shards."""
    paths = training_shards(work, shards)
    codes = [np.load(work / "codes" / path.with_suffix(".npy").name) for path in paths]
    audio = [np.load(path)["audio"] for path in paths]
    return torch.from_numpy(np.concatenate(codes)), torch.from_numpy(np.concatenate(audio))


def draw(
    quantizer: ResidualQuantizer, codes: torch.Tensor, audio: torch.Tensor, batch: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents (B, width, FRAMES), in turn of all codebooks and of the coarse two; audio (B, samples) at rms 0.4."""
    starts = np.random.default_rng((9, step)).integers(len(codes) - FRAMES, size=batch)
    pieces = torch.stack([codes[start : start + FRAMES] for start in starts]).long()
    signals = torch.stack([audio[start * HOP : (start + FRAMES) * HOP] for start in starts])
    latents = [quantizer.decode(piece[:, : (CODEBOOKS, COARSE)[b % 2]]) for b, piece in enumerate(pieces)]
    return torch.stack(latents).transpose(1, 2), signals.float() / 32768 * INPUT_GAIN


def weights(step: int) -> dict[str, float]:
    """Weights of the loss terms."""
    ramp = min(max((step - RAMP[0]) / (RAMP[1] - RAMP[0]), 0.0), 1.0)
    return {"mel": 1.0, "wave": 1 + (WAVE_WEIGHT - 1) * ramp, "log": LOG_WEIGHT * ramp}


def main() -> None:
    """Train until the asked number of steps."""
    work, run = parse_run("decoder", __doc__, steps=6000, batch=6, rate=1e-3, shards=20)
    codes, audio = load_frames(work, run.shards)
    quantizer, loss = load_quantizer(work), SpeechLoss()
    decoder = zero_padded(new_codec().decoder)

    def losses_at(step: int) -> dict[str, torch.Tensor]:
        latents, target = draw(quantizer, codes, audio, run.batch, step)
        with torch.autocast("cpu", torch.bfloat16):
            output = decoder(latents).squeeze(1)
        return loss(output.float(), target, weights(step))

    train(decoder, run, losses_at, adam(decoder, run.rate))


if __name__ == "__main__":
    main()
