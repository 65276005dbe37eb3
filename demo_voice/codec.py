"""The codec's pieces for training: SEANet from transformers, a residual quantizer by k-means, and the losses."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import EncodecConfig, EncodecModel

FRAME_RATE_HZ = 75
CODEBOOKS, CODES, WIDTH = 8, 1024, 48
PRE_EMPHASIS = 0.95
INPUT_GAIN = 6.0  # the codec works at an rms of 0.4 inside; the teacher's is 0.066
LOG_FLOOR = 0.001  # of the mean level: quiet consonants are 40 dB and more below the vowels
MEL_SCALES = ((128, 16), (256, 32), (512, 48), (1024, 64), (2048, 80))  # (FFT length, mel bands)


def codec_config() -> EncodecConfig:
    """A small causal 24 kHz EnCodec: 16 filters, 48 wide latents, 8 codebooks of 1024 at 75 Hz."""
    return EncodecConfig(
        target_bandwidths=[1.5, 3.0, 6.0],
        sampling_rate=24000,
        audio_channels=1,
        normalize=False,
        hidden_size=WIDTH,
        num_filters=16,
        num_residual_layers=1,
        upsampling_ratios=[8, 5, 4, 2],
        norm_type="weight_norm",
        use_causal_conv=True,
        codebook_size=CODES,
        codebook_dim=WIDTH,
        use_conv_shortcut=True,
    )


def preserve_variance(model: nn.Module) -> None:
    """Initialise every convolution so that its output keeps its input's variance."""
    for module in model.modules():
        if not isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
            continue
        direction = module.parametrizations.weight.original1
        fan_in = direction.shape[1] * direction.shape[2]
        if isinstance(module, nn.ConvTranspose1d):
            fan_in = direction.shape[0] * direction.shape[2] // module.stride[0]
        with torch.no_grad():
            direction.normal_(0.0, 1.2 / math.sqrt(fan_in))
            module.parametrizations.weight.original0.copy_(direction.norm(dim=(1, 2), keepdim=True))
            module.bias.zero_()
    for name, module in model.named_modules():
        # the two branches of a residual block add up: each carries half of the variance
        if name.endswith(("block.3.conv", "shortcut.conv")):
            with torch.no_grad():
                module.parametrizations.weight.original0.mul_(math.sqrt(0.5))


def new_codec() -> EncodecModel:
    """An untrained codec with usable initial weights."""
    model = EncodecModel(codec_config())
    preserve_variance(model)
    return model


def zero_padded(half: nn.Module) -> nn.Module:
    """The same half of a codec, for training: zeros before a crop instead of its reflection, at half the cost."""
    for module in half.modules():
        if hasattr(module, "pad_mode"):
            module.pad_mode = "constant"
    return half


class ResidualQuantizer(nn.Module):
    """Residual vector quantizer by k-means: `embed` (K, codes, width)."""

    def __init__(self):
        super().__init__()
        self.register_buffer("embed", torch.zeros(CODEBOOKS, CODES, WIDTH))

    @torch.no_grad()
    def fit(self, latents: torch.Tensor, first_width: int, rounds: int = 15) -> None:
        """Learn a codebook at a time from latents (N, width).

        The first codebook sees `first_width` dimensions and is zero in the others: its choice depends on those alone.
        """
        residual = latents.clone()
        for k in range(CODEBOOKS):
            seen = residual.clone()
            if k == 0:
                seen[:, first_width:] = 0
            means = seen[torch.randperm(len(seen))[:CODES]].clone()
            for _ in range(rounds):
                chosen = nearest(seen, means)
                count = torch.bincount(chosen, minlength=CODES).unsqueeze(1)
                total = torch.zeros_like(means).index_add_(0, chosen, seen)
                means = torch.where(count > 0, total / count.clamp(min=1), means)
            self.embed[k] = means
            residual = residual - means[nearest(residual, means)]

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (N, width) -> codes (N, K)."""
        residual, codes = latents, []
        for k in range(CODEBOOKS):
            codes.append(nearest(residual, self.embed[k]))
            residual = residual - self.embed[k][codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (..., K or fewer) -> latents (..., width)."""
        return sum(self.embed[k][codes[..., k]] for k in range(codes.shape[-1]))


def nearest(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Index of the nearest code (codes, width) of each vector (N, width)."""
    half = codes.pow(2).sum(1) / 2
    # in pieces that stay in the cache
    return torch.cat([(piece @ codes.T - half).argmax(dim=1) for piece in vectors.split(1024)])


def load_codec(work: Path) -> EncodecModel:
    """The trained codec as transformers runs it, for signals at the teacher's level times INPUT_GAIN."""
    model = new_codec()
    for name, part in (("encoder", model.encoder), ("decoder", model.decoder)):
        if (work / f"{name}.pt").exists():
            part.load_state_dict(torch.load(work / f"{name}.pt")["model"])
        else:
            print(f"{name}.pt is missing: this half of the codec is untrained")
    for layer, embed in zip(model.quantizer.layers, torch.load(work / "quantizer.pt")["embed"], strict=False):
        layer.codebook.embed.copy_(embed)
        layer.codebook.embed_avg.copy_(embed)
        layer.codebook.cluster_size.fill_(1.0)
    return model.eval()


@torch.no_grad()
def decode(model: EncodecModel, codes: np.ndarray) -> np.ndarray:
    """Codes (frames, K) -> audio at the teacher's level, float32."""
    latents = model.quantizer.decode(torch.from_numpy(codes.astype(np.int64).T).unsqueeze(1))
    return model.decoder(latents)[0, 0].numpy() / INPUT_GAIN


def mel_filters(fft: int, bands: int, rate: int = 24000) -> torch.Tensor:
    """Triangular filters (fft // 2 + 1, bands), equally spaced in mel, each with unit sum."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    hertz = torch.linspace(0, rate / 2, fft // 2 + 1).unsqueeze(1)
    # a band narrower than a bin would be empty: each triangle is at least one bin wide
    width = torch.clamp(edges[1:] - edges[:-1], min=rate / fft)
    up = (hertz - edges[1:-1]) / width[:-1] + 1
    down = (edges[1:-1] - hertz) / width[1:] + 1
    filters = torch.minimum(up, down).clamp(min=0)
    return filters / filters.sum(dim=0).clamp(min=1e-6)


class SpeechLoss(nn.Module):
    """Distance of two signals (B, samples): multi-scale mel in power 0.4, waveform, and log mel."""

    def __init__(self):
        super().__init__()
        self.filters = [mel_filters(fft, bands) for fft, bands in MEL_SCALES]
        self.windows = [torch.hann_window(fft) for fft, _ in MEL_SCALES]

    def mels(self, audio: torch.Tensor) -> list[torch.Tensor]:
        """Mel magnitudes (B, frames, bands) at each scale."""
        out = []
        for (fft, _), filters, window in zip(MEL_SCALES, self.filters, self.windows, strict=True):
            spectrum = torch.stft(audio, fft, fft // 4, window=window, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            out.append((power + 1e-7).sqrt().transpose(1, 2) @ filters)
        return out

    def forward(self, output: torch.Tensor, target: torch.Tensor, weights: dict[str, float]) -> dict[str, torch.Tensor]:
        """The terms `mel`, `wave` and `log`, each relative to the target's size and times its weight."""
        output, target = pre_emphasised(output), pre_emphasised(target)
        wave = (output - target).abs().mean() / target.abs().mean()
        power, logarithmic = output.new_zeros(()), output.new_zeros(())
        with torch.no_grad():
            wanted = self.mels(target)
        for got, want in zip(self.mels(output), wanted, strict=True):
            size = want.mean()
            powered = (want / size).pow(0.4)
            power = power + ((got / size).pow(0.4) - powered).abs().mean() / powered.mean()
            distance = torch.log(got / size + LOG_FLOOR) - torch.log(want / size + LOG_FLOOR)
            logarithmic = logarithmic + distance.abs().mean()
        scales = len(MEL_SCALES)
        terms = {"mel": power / scales, "wave": wave, "log": logarithmic / scales}
        return {name: weights[name] * value for name, value in terms.items()}


def pre_emphasised(audio: torch.Tensor) -> torch.Tensor:
    """First difference with factor 0.95, brought back to about the level of the input for speech."""
    return (audio[:, 1:] - PRE_EMPHASIS * audio[:, :-1]) * 3.0
