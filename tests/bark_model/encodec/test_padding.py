"""A row of a batch is the row alone: at every length, in every place, whatever stands in its padding."""

import jax
import numpy as np
import pytest

from bark_model.encodec.codec import decode, encode
from bark_model.encodec.conv import mirror_left, mirror_right
from tests.bark_model.encodec.conftest import noise

run_decode = jax.jit(decode)
run_encode = jax.jit(encode, static_argnames="num_codebooks")
run_encoder = jax.jit(lambda codec, x, lengths: codec.encoder(x[..., None], lengths))


def close(ours, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(ours), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_decode_of_short_rows_real_sizes(real):
    """1..8 frames: up to 6 the reflect padding of the first convolution has too few frames to mirror."""
    hop, lengths = real.config.hop_length, np.arange(1, 9)
    codes = real.random_codes(8, 8, 8)
    audio = run_decode(real.codec, codes, lengths)
    for row, length in enumerate(lengths):
        close(audio[row, : length * hop], real.reference_audio(codes[row : row + 1, :, :length])[0])


def test_decode_of_a_short_array(small):
    """The array itself may be shorter than the padding."""
    for frames in (1, 2, 6, 7):
        codes = small.random_codes(2, 8, frames)
        close(run_decode(small.codec, codes), small.reference_audio(codes))


def test_decode_of_a_ragged_batch(small):
    hop, lengths = small.config.hop_length, np.array([1, 30, 6, 7, 17, 29])
    codes = small.random_codes(6, 8, 30)
    audio = run_decode(small.codec, codes, lengths)
    for row, length in enumerate(lengths):
        close(audio[row, : length * hop], small.reference_audio(codes[row : row + 1, :, :length])[0])


def test_garbage_codes_in_the_padding_change_nothing(small):
    hop, lengths = small.config.hop_length, np.array([3, 10])
    codes = small.random_codes(2, 8, 20)
    clean = np.asarray(run_decode(small.codec, codes, lengths))
    for garbage in (-1, 31, 2**31 - 1, -(2**31)):
        dirty = codes.copy()
        dirty[0, :, 3:] = dirty[1, :, 10:] = garbage
        audio = np.asarray(run_decode(small.codec, dirty, lengths))
        assert np.isfinite(audio).all()
        for row, length in enumerate(lengths):
            np.testing.assert_array_equal(audio[row, : length * hop], clean[row, : length * hop])


def test_a_row_is_the_same_at_any_place_of_a_batch(small):
    codes, lengths = small.random_codes(4, 8, 20), np.array([3, 20, 11, 7])
    hop, order = small.config.hop_length, np.array([2, 0, 3, 1])
    straight = np.asarray(run_decode(small.codec, codes, lengths))
    turned = np.asarray(run_decode(small.codec, codes[order], lengths[order]))
    for place, row in enumerate(order):
        np.testing.assert_array_equal(turned[place, : lengths[row] * hop], straight[row, : lengths[row] * hop])


def test_decode_of_a_beginning_is_the_beginning(small):
    """The network is causal: from 7 frames on a longer clip starts with the same samples."""
    codes = small.random_codes(1, 8, 40)
    whole = np.asarray(decode(small.codec, codes))
    for frames in (7, 20):
        beginning = run_decode(small.codec, codes[..., :frames])
        close(beginning, whole[:, : frames * small.config.hop_length])


SHORT_AND_UNEVEN_SAMPLES = [1, 2, 3, 5, 6, 7, 8, 23, 24, 25, 47, 48, 49, 50, 71, 95, 97, 479, 480, 481]


def test_encode_of_a_ragged_batch(small):
    """Lengths in samples on both sides of every stride and of the frame, 24 samples."""
    lengths = np.array(SHORT_AND_UNEVEN_SAMPLES)
    audio = noise(len(lengths), 500)
    latents = run_encoder(small.codec, audio, lengths)
    codes = np.asarray(run_encode(small.codec, audio, lengths, num_codebooks=8))
    for row, length in enumerate(lengths):
        frames = small.config.num_frames(int(length))
        alone = audio[row : row + 1, :length]
        close(latents[row, :frames], small.reference_latents(alone)[0])
        np.testing.assert_array_equal(codes[row, :, :frames], small.reference_codes(alone, 40.0)[0])


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 1_000, 2_222])
def test_encode_of_uneven_lengths_real_sizes(real, samples):
    audio = noise(1, 2_560, seed=samples)
    latents = run_encoder(real.codec, audio, np.array([samples]))
    wanted = real.reference_latents(audio[:, :samples])
    close(latents[:, : wanted.shape[1]], wanted)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_garbage_samples_in_the_padding_change_nothing(small, garbage):
    audio, lengths = noise(2, 300), np.array([50, 131])
    clean = np.asarray(run_encode(small.codec, audio, lengths, num_codebooks=8))
    audio[0, 50:] = audio[1, 131:] = garbage
    dirty = np.asarray(run_encode(small.codec, audio, lengths, num_codebooks=8))
    for row, length in enumerate(lengths):
        frames = small.config.num_frames(int(length))
        np.testing.assert_array_equal(dirty[row, :, :frames], clean[row, :, :frames])


def rows(*values: str) -> np.ndarray:
    """Rows of digits, `?` is 99."""
    return np.array([[99 if v == "?" else int(v) for v in row] for row in values], np.float32)[..., None]


def test_left_padding_as_drawn():
    out = mirror_left(rows("12345??", "12?????", "1??????"), np.array([5, 2, 1]), 3)
    np.testing.assert_array_equal(out, rows("43212345??", "00212?????", "0001??????"))


def test_right_padding_as_drawn():
    out = np.asarray(mirror_right(rows("123456??", "123?????", "12345678"), np.array([6, 3, 8]), 4))
    np.testing.assert_array_equal(out[0], rows("12345654")[0])
    np.testing.assert_array_equal(out[1, :4], rows("1230")[0])
    np.testing.assert_array_equal(out[2], rows("12345678")[0])
