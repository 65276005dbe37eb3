"""Against transformers with random weights: the same samples, the same codes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bark_model.encodec.codec import Codec, decode, encode
from bark_model.encodec.config import CodecConfig
from bark_model.encodec.weights import codec_weights
from tests.bark_model.encodec.conftest import SMALL, Pair, load, make_pair, noise

MAX_ERROR = 1e-5  # of the signal's peak

run_decode = jax.jit(decode)
run_encode = jax.jit(encode, static_argnames="num_codebooks")
run_encoder = jax.jit(lambda codec, x, lengths: codec.encoder(x[..., None], lengths))


def assert_same_audio(ours, wanted: np.ndarray) -> None:
    assert ours.shape == wanted.shape
    assert wanted.std() > 0.05 * np.abs(wanted).max()  # a signal, not a constant
    np.testing.assert_allclose(np.asarray(ours), wanted, rtol=0, atol=MAX_ERROR * np.abs(wanted).max())


def distances(codebooks: np.ndarray, latents: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Squared distance of each codebook's residual to each of its entries, along given codes: [B, K, T, V]."""
    residual, found = latents, []
    for book, chosen in zip(codebooks, codes.swapaxes(0, 1), strict=False):
        found.append(np.square(residual).sum(-1, keepdims=True) - 2 * residual @ book.T + np.square(book).sum(-1))
        residual = residual - book[chosen]
    return np.stack(found, axis=1)


def assert_same_codes(pair: Pair, audio: np.ndarray, bandwidth_kbps: float) -> None:
    """Equal wherever a choice is clearer than the error measured there: their float32 against ours in float64."""
    num_codebooks = pair.config.num_codebooks(bandwidth_kbps)
    wanted = pair.reference_codes(audio, bandwidth_kbps)
    ours = np.asarray(run_encode(pair.codec, audio, num_codebooks=num_codebooks))
    assert ours.shape == wanted.shape
    assert len(np.unique(wanted)) > pair.config.codebook_size / 4

    books = np.asarray(pair.codec.quantizer.codebooks[...])
    latents = np.asarray(run_encoder(pair.codec, audio, np.full(len(audio), audio.shape[1])))
    reference = distances(books, pair.reference_latents(audio), wanted)
    error = np.abs(distances(books.astype(float), latents.astype(float), wanted) - reference).max(axis=-1)
    best, second = np.moveaxis(np.partition(reference, 1, axis=-1)[..., :2], -1, 0)
    unclear = np.logical_or.accumulate(second - best <= 2 * error, axis=1)  # a flip spoils the codebooks behind it
    assert unclear.sum() <= max(1, unclear.size // 10_000)
    np.testing.assert_array_equal(ours[~unclear], wanted[~unclear])


def test_decode_small(small):
    codes = small.random_codes(3, 8, 50)
    assert_same_audio(run_decode(small.codec, codes), small.reference_audio(codes))


def test_encode_small(small):
    assert_same_codes(small, noise(2, 6_007), 40.0)


def test_decode_real_sizes_from_8_of_32_codebooks(real):
    codes = real.random_codes(2, 8, 40)
    assert_same_audio(run_decode(real.codec, codes), real.reference_audio(codes))


@pytest.mark.parametrize("bandwidth_kbps", [6.0, 24.0])
def test_encode_real_sizes(real, bandwidth_kbps):
    assert_same_codes(real, noise(1, 24_123), bandwidth_kbps)


@pytest.mark.parametrize("bandwidth_kbps", SMALL.target_bandwidths)
def test_fewer_codebooks_are_the_first_ones(small, bandwidth_kbps):
    audio = noise(1, 480)
    every = run_encode(small.codec, audio, num_codebooks=8)
    num_codebooks = small.config.num_codebooks(bandwidth_kbps)
    assert num_codebooks == {10.0: 2, 20.0: 4, 40.0: 8}[bandwidth_kbps]
    some = run_encode(small.codec, audio, num_codebooks=num_codebooks)
    np.testing.assert_array_equal(some, every[:, :num_codebooks])


VARIANTS = {
    "helper_size": {"num_filters": 16, "hidden_size": 64},
    "three_blocks": {"num_residual_layers": 3, "num_filters": 2},  # dilations 1, 2, 4
    "no_shortcut": {"use_conv_shortcut": False, "compress": 4},
    "no_blocks": {"num_residual_layers": 0, "num_lstm_layers": 1},
    "even_kernels": {"kernel_size": 4, "last_kernel_size": 2, "residual_kernel_size": 5, "dilation_growth_rate": 3},
    "kernels_of_one": {"kernel_size": 1, "last_kernel_size": 1, "residual_kernel_size": 1, "num_lstm_layers": 3},
    "ratio_of_one": {"upsampling_ratios": (3, 1), "target_bandwidths": (80.0,)},
    "trim_left": {"trim_right_ratio": 0.0},
    "trim_both": {"trim_right_ratio": 0.5},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_other_sizes_alone_and_padded(changes):
    pair = make_pair(dataclasses.replace(SMALL, **changes))
    hop = pair.config.hop_length
    codes, audio = pair.random_codes(1, 2, 12), noise(1, 12 * hop)
    for frames in (1, 2, 5, 12):
        wanted = pair.reference_audio(codes[..., :frames])
        atol = MAX_ERROR * np.abs(wanted).max()
        padded = run_decode(pair.codec, codes, np.array([frames]))[:, : frames * hop]
        np.testing.assert_allclose(padded, wanted, rtol=0, atol=atol)
        samples = frames * hop - frames % 2
        wanted = pair.reference_latents(audio[:, :samples])
        latents = run_encoder(pair.codec, audio, np.array([samples]))[:, : wanted.shape[1]]
        np.testing.assert_allclose(latents, wanted, rtol=0, atol=MAX_ERROR * np.abs(wanted).max())


def test_parameters_in_half_precision_compute_in_float32(small):
    codes, audio = small.random_codes(1, 4, 10), noise(1, 300)
    weights = codec_weights(small.config, small.reference_tensors())
    for dtype in (jnp.bfloat16, jnp.float16):
        half = load(small.config, {path: value.astype(dtype) for path, value in weights.items()})
        rounded = {path: value.astype(dtype).astype(np.float32) for path, value in weights.items()}
        full = load(small.config, rounded)
        assert run_decode(half, codes).dtype == jnp.float32
        np.testing.assert_array_equal(run_decode(half, codes), run_decode(full, codes))
        np.testing.assert_array_equal(
            run_encode(half, audio, num_codebooks=8), run_encode(full, audio, num_codebooks=8)
        )
        made = nnx.eval_shape(lambda dtype=dtype: Codec(SMALL, rngs=nnx.Rngs(0), dtype=dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(made))} == {jnp.dtype(dtype)}


def test_products_ask_for_full_precision(small):
    codes, audio = small.random_codes(1, 4, 10), noise(1, 300)
    graphs = [
        str(jax.make_jaxpr(decode)(small.codec, codes)),
        str(jax.make_jaxpr(lambda codec, x: encode(codec, x, num_codebooks=8))(small.codec, audio)),
    ]
    for graph in graphs:
        assert graph.count("precision=") > 0
        assert "precision=None" not in graph


@pytest.mark.parametrize("num_codebooks", [0, 33])
def test_codebooks_that_are_not_there(num_codebooks):
    codec = nnx.eval_shape(lambda: Codec(CodecConfig(), rngs=nnx.Rngs(0)))
    message = f"{num_codebooks} codebooks, this codec has 32: give 1 to 32"
    with pytest.raises(ValueError, match=f"^{message}$"):
        decode(codec, np.zeros((1, num_codebooks, 3), np.int32))
    with pytest.raises(ValueError, match=f"^{message}$"):
        encode(codec, np.zeros((1, 640), np.float32), num_codebooks=num_codebooks)
