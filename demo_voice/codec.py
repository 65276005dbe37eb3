"""The codec's pieces for training: SEANet from transformers, an EMA residual quantizer, and the losses."""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import EncodecConfig, EncodecModel

FRAME_RATE_HZ = 75
CODEBOOKS, CODES = 8, 1024
PRE_EMPHASIS = 0.95
LOG_FLOOR = 0.001  # of the mean level: quiet consonants are 40 dB and more below the vowels
MEL_SCALES = ((128, 16), (256, 32), (512, 48), (1024, 64), (2048, 80))  # (FFT length, mel bands)


def codec_config() -> EncodecConfig:
    """A small causal 24 kHz EnCodec: 16 filters, 64 wide latents, 8 codebooks of 1024 at 75 Hz."""
    return EncodecConfig(
        target_bandwidths=[1.5, 3.0, 6.0],
        sampling_rate=24000,
        audio_channels=1,
        normalize=False,
        hidden_size=64,
        num_filters=16,
        num_residual_layers=1,
        upsampling_ratios=[8, 5, 4, 2],
        norm_type="weight_norm",
        use_causal_conv=True,
        codebook_size=CODES,
        codebook_dim=64,
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


class ResidualQuantizer(nn.Module):
    """Residual vector quantizer whose codebooks follow the data by moving averages.

    `embed` (K, codes, width); a code that nothing chose for long restarts at a residual of the batch.
    """

    def __init__(self, width: int = 64, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("embed", torch.zeros(CODEBOOKS, CODES, width))
        self.register_buffer("total", torch.zeros(CODEBOOKS, CODES, width))
        self.register_buffer("count", torch.zeros(CODEBOOKS, CODES))

    @torch.no_grad()
    def start(self, latents: torch.Tensor, rounds: int = 12) -> None:
        """k-means, a codebook at a time, on latents (N, width)."""
        residual = latents.clone()
        for k in range(CODEBOOKS):
            means = residual[torch.randperm(len(residual))[:CODES]].clone()
            for _ in range(rounds):
                chosen = nearest(residual, means)
                count = torch.bincount(chosen, minlength=CODES).unsqueeze(1)
                total = torch.zeros_like(means).index_add_(0, chosen, residual)
                means = torch.where(count > 0, total / count.clamp(min=1), means)
            count = torch.bincount(nearest(residual, means), minlength=CODES).float()
            self.embed[k] = means
            self.count[k] = count / count.sum() * 300
            self.total[k] = means * self.count[k].unsqueeze(1)
            residual = residual - means[nearest(residual, means)]

    def encode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (N, width) -> codes (N, K)."""
        residual, codes = latents, []
        for k in range(CODEBOOKS):
            codes.append(nearest(residual, self.embed[k]))
            residual = residual - self.embed[k][codes[-1]]
        return torch.stack(codes, dim=1)

    def forward(self, latents: torch.Tensor, depth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Quantize (N, width) with the first depth[n] codebooks, learn from it.

        Returns the quantized latents with a straight-through gradient, and the commitment loss.
        """
        residual, quantized = latents.detach(), torch.zeros_like(latents)
        commitment = latents.new_zeros(())
        for k in range(CODEBOOKS):
            chosen = nearest(residual, self.embed[k])
            used = (depth > k).unsqueeze(1)
            step = self.embed[k][chosen]
            self.follow(k, residual, chosen)
            quantized = quantized + torch.where(used, step, torch.zeros_like(step))
            residual = residual - step
            commitment = commitment + (functional.mse_loss(latents, quantized.detach(), reduction="none") * used).mean()
        return latents + (quantized - latents).detach(), commitment / CODEBOOKS

    @torch.no_grad()
    def follow(self, k: int, residual: torch.Tensor, chosen: torch.Tensor) -> None:
        """Move codebook k towards the residuals that chose its codes; restart dead codes."""
        count = torch.bincount(chosen, minlength=CODES).float()
        total = torch.zeros_like(self.total[k]).index_add_(0, chosen, residual)
        self.count[k].mul_(self.decay).add_(count, alpha=1 - self.decay)
        self.total[k].mul_(self.decay).add_(total, alpha=1 - self.decay)
        dead = self.count[k] < 0.02
        if dead.any():
            fresh = residual[torch.randint(len(residual), (int(dead.sum()),))]
            self.count[k][dead] = 0.2
            self.total[k][dead] = fresh * 0.2
        self.embed[k] = self.total[k] / self.count[k].clamp(min=1e-5).unsqueeze(1)


def nearest(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Index of the nearest code (codes, width) of each vector (N, width)."""
    return (vectors @ codes.T - codes.pow(2).sum(1) / 2).argmax(dim=1)


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

    def forward(self, output: torch.Tensor, target: torch.Tensor, log_weight: float) -> dict[str, torch.Tensor]:
        """The three terms, each relative to the target's size; log_weight 0 leaves the last one out."""
        output, target = pre_emphasised(output), pre_emphasised(target)
        wave = (output - target).abs().mean() / target.abs().mean()
        power, logarithmic = output.new_zeros(()), output.new_zeros(())
        with torch.no_grad():
            wanted = self.mels(target)
        for got, want in zip(self.mels(output), wanted, strict=True):
            size = want.mean()
            powered = (want / size).pow(0.4)
            power = power + ((got / size).pow(0.4) - powered).abs().mean() / powered.mean()
            if log_weight > 0:
                distance = torch.log(got / size + LOG_FLOOR) - torch.log(want / size + LOG_FLOOR)
                logarithmic = logarithmic + distance.abs().mean()
        scales = len(MEL_SCALES)
        return {"mel": power / scales, "wave": wave, "log": logarithmic / scales * log_weight}


def pre_emphasised(audio: torch.Tensor) -> torch.Tensor:
    """First difference with factor 0.95, brought back to about the level of the input for speech."""
    return (audio[:, 1:] - PRE_EMPHASIS * audio[:, :-1]) * 3.0
