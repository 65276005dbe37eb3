"""Train the codec on the teacher's speech; resumes from its checkpoint."""

import argparse
import math
import time
from pathlib import Path

import torch
from codec import CODEBOOKS, ResidualQuantizer, SpeechLoss, new_codec
from data import load_audio, save_atomically

RMS = 0.4  # level the codec works at inside; the teacher's is 0.066
INPUT_GAIN = 6.0
BATCH_SAMPLES = 10 * 9600
UNQUANTIZED_STEPS = 1200
LOG_MEL_STEPS = (300, 600)  # the log term is ramped in between


def crops(audio: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """Random pieces (B, length) of a long signal, skipping the nearly silent ones."""
    found = []
    while len(found) * length < BATCH_SAMPLES:
        start = int(torch.randint(len(audio) - length, (1,), generator=generator))
        piece = audio[start : start + length].float() / 32768 * INPUT_GAIN
        if piece.square().mean() > 1e-3:
            found.append(piece)
    return torch.stack(found)


def learning_rate(step: int, steps: int, top: float) -> float:
    """Short warm-up, constant, cosine over the last 60 %."""
    tail = max(0.0, (step / steps - 0.4) / 0.6)
    return top * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(tail, 1.0))))


def depths(batch: int, frames: int) -> torch.Tensor:
    """Codebooks used by each frame (batch * frames,), the same within a crop: all, or often only the coarse two."""
    choices = torch.tensor([1, 2, 2, 3, 4, 6, CODEBOOKS, CODEBOOKS, CODEBOOKS, CODEBOOKS])
    return choices[torch.randint(len(choices), (batch,))].repeat_interleave(frames)


class Trainer:
    """Codec, quantizer, optimizer and the step count, saved and loaded together."""

    def __init__(self, folder: Path, top_rate: float):
        torch.manual_seed(6)
        self.path = folder / "codec.pt"
        self.codec, self.quantizer, self.loss = new_codec(), ResidualQuantizer(), SpeechLoss()
        for module in self.codec.modules():
            # zeros instead of reflection while training: half the cost, and it only concerns a crop's first samples
            if hasattr(module, "pad_mode"):
                module.pad_mode = "constant"
        self.parameters = [*self.codec.encoder.parameters(), *self.codec.decoder.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=top_rate, betas=(0.8, 0.99))
        self.step, self.top_rate = 0, top_rate
        self.generator = torch.Generator().manual_seed(6)
        if self.path.exists():
            state = torch.load(self.path)
            self.codec.load_state_dict(state["codec"])
            self.quantizer.load_state_dict(state["quantizer"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            self.generator.manual_seed(self.step)

    def save(self) -> None:
        """Write the whole state."""
        state = {"codec": self.codec.state_dict(), "quantizer": self.quantizer.state_dict(), "step": self.step}
        save_atomically({**state, "optimizer": self.optimizer.state_dict()}, self.path)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Audio (B, samples) -> latents (B, width, frames)."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.codec.encoder(batch.unsqueeze(1)).float()

    def start_quantizer(self, audio: torch.Tensor) -> None:
        """k-means on the latents of 40 batches."""
        with torch.no_grad():
            latents = [self.encode(crops(audio, 9600, self.generator)) for _ in range(40)]
        self.quantizer.start(torch.cat([z.transpose(1, 2).reshape(-1, z.shape[1]) for z in latents]))

    def train_step(self, batch: torch.Tensor, steps: int) -> dict[str, float]:
        """One update; returns the loss terms."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, steps, self.top_rate)
        latents = self.encode(batch)
        commitment = latents.new_zeros(())
        if self.step >= UNQUANTIZED_STEPS:
            flat = latents.transpose(1, 2).reshape(-1, latents.shape[1])
            flat, commitment = self.quantizer(flat, depths(len(batch), latents.shape[2]))
            latents = flat.view(len(batch), -1, latents.shape[1]).transpose(1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.codec.decoder(latents).squeeze(1)
        begin, end = LOG_MEL_STEPS
        ramp = min(max((self.step - begin) / (end - begin), 0.0), 1.0)
        terms = self.loss(output.float(), batch, 0.5 * ramp)
        terms["commit"] = 0.25 * commitment
        self.optimizer.zero_grad()
        sum(terms.values()).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 2.0)
        self.optimizer.step()
        self.step += 1
        return {**{name: value.item() for name, value in terms.items()}, "norm": norm.item()}


def main() -> None:
    """Train until the asked number of steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=5500)
    parser.add_argument("--shards", type=int, default=25)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    audio = load_audio(args.work, args.shards)
    trainer = Trainer(args.work, args.rate)
    print(f"{len(audio) / 24000 / 60:.0f} minutes of speech, from step {trainer.step}", flush=True)
    began, first = time.time(), trainer.step
    sums: dict[str, float] = {}
    while trainer.step < args.steps:
        if trainer.step == UNQUANTIZED_STEPS:
            trainer.start_quantizer(audio)
        # longer crops later, so that the LSTM sees more than half a second
        length = 9600 if trainer.step < args.steps // 2 else 19200
        terms = trainer.train_step(crops(audio, length, trainer.generator), args.steps)
        sums = {name: sums.get(name, 0.0) + value for name, value in terms.items()}
        if trainer.step % 50 == 0:
            text = " ".join(f"{name} {value / 50:.3f}" for name, value in sums.items())
            pace = (time.time() - began) / (trainer.step - first)
            print(f"{trainer.step} {text} {pace:.3f} s/step", flush=True)
            sums = {}
        if trainer.step % 250 == 0 or trainer.step == args.steps:
            trainer.save()


if __name__ == "__main__":
    main()
