"""A transformers codec with random weights beside ours with the same weights."""

import dataclasses
from dataclasses import dataclass

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import EncodecConfig, EncodecModel

from bark_model.encodec.codec import Codec
from bark_model.encodec.config import CodecConfig
from bark_model.encodec.weights import codec_weights

torch.set_num_threads(1)  # two thread pools on few cores spend their time waiting for each other

SMALL = CodecConfig(
    num_filters=4, upsampling_ratios=(4, 3, 2), hidden_size=12, codebook_size=32, target_bandwidths=(10.0, 20.0, 40.0)
)


@dataclass(frozen=True)
class Pair:
    """One codec twice: `reference` is transformers', `codec` ours."""

    config: CodecConfig
    reference: EncodecModel
    codec: Codec

    def reference_tensors(self) -> dict[str, np.ndarray]:
        return {name: tensor.numpy() for name, tensor in self.reference.state_dict().items()}

    def reference_audio(self, codes: np.ndarray) -> np.ndarray:
        """codes [B, K, T] -> audio [B, L]."""
        with torch.no_grad():
            return self.reference.decode(torch.from_numpy(codes).long()[None], [None]).audio_values[:, 0].numpy()

    def reference_latents(self, audio: np.ndarray) -> np.ndarray:
        """audio [B, L] -> latent frames [B, T, C]."""
        with torch.no_grad():
            return self.reference.encoder(torch.from_numpy(audio)[:, None]).transpose(1, 2).numpy()

    def reference_codes(self, audio: np.ndarray, bandwidth_kbps: float) -> np.ndarray:
        """audio [B, L] -> codes [B, K, T]."""
        with torch.no_grad():
            return (
                self.reference.encode(torch.from_numpy(audio)[:, None], bandwidth=bandwidth_kbps).audio_codes[0].numpy()
            )

    def random_codes(self, rows: int, codebooks: int, frames: int, seed: int = 0) -> np.ndarray:
        shape = (rows, codebooks, frames)
        return np.random.default_rng(seed).integers(self.config.codebook_size, size=shape).astype(np.int32)


def load(config: CodecConfig, weights: dict[str, np.ndarray]) -> Codec:
    """Our codec with these weights; every path and shape must be the abstract module's."""
    graph, state = nnx.split(nnx.eval_shape(lambda: Codec(config, rngs=nnx.Rngs(0))))
    flat = {".".join(map(str, path)): path for path, _ in nnx.to_flat_state(state)}
    assert flat.keys() == weights.keys()
    shapes = {path: leaf.shape for path, leaf in nnx.to_flat_state(state)}
    assert shapes == {flat[name]: value.shape for name, value in weights.items()}
    leaves = nnx.from_flat_state({flat[name]: nnx.Param(jax.numpy.asarray(value)) for name, value in weights.items()})
    return nnx.merge(graph, leaves)


def noise(rows: int, samples: int, seed: int = 0) -> np.ndarray:
    """audio [B, L]"""
    return np.random.default_rng(seed).normal(scale=0.3, size=(rows, samples)).astype(np.float32)


def _set_codebooks(reference: EncodecModel, rng: np.random.Generator) -> None:
    """Entries spread as the latents of noise are, later books ever finer, so that codes differ from frame to frame."""
    latents = reference.encoder(torch.from_numpy(noise(1, 12_000))[:, None])[0].numpy()  # [C, T]
    mean, deviation = latents.mean(axis=1), latents.std(axis=1)
    for k, layer in enumerate(reference.quantizer.layers):
        entries = rng.normal(size=layer.codebook.embed.shape) * deviation * 0.95**k + (mean if k == 0 else 0)
        layer.codebook.embed.copy_(torch.from_numpy(entries).float())


def make_pair(config: CodecConfig, seed: int = 0) -> Pair:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    reference = EncodecModel(EncodecConfig(**dataclasses.asdict(config))).eval()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name.endswith(".original0"):  # g: not |v|, and large enough that the signal does not die out
                parameter.mul_(torch.from_numpy(rng.uniform(1.2, 2.4, parameter.shape)).float())
        _set_codebooks(reference, rng)
    tensors = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    return Pair(config, reference, load(config, codec_weights(config, tensors)))


@pytest.fixture(scope="session")
def small() -> Pair:
    """24 samples a frame; 200 codes of 5 bits a second a codebook."""
    return make_pair(SMALL)


@pytest.fixture(scope="session")
def real() -> Pair:
    """The 24 kHz codec's own sizes."""
    return make_pair(CodecConfig())
