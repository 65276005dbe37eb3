"""Checkpoints of several shapes, written once, and what runs them. Four CPU devices, of which fixtures use one."""

from dataclasses import replace

import jax
import pytest

from bark_model import Bark, Checkpoint
from bark_model.random_checkpoint import TINY, write_random

jax.config.update("jax_num_cpu_devices", 4)

SLOTS = 4

SHAPES = {
    # bias, tied heads, an end token apart from the vocabulary
    "tiny": TINY,
    # no bias, untied heads, wider and deeper, an end token right behind the vocabulary, other windows
    "unbiased": replace(
        TINY,
        semantic=replace(TINY.semantic, bias=False, num_layers=3, num_heads=4, hidden_size=48),
        coarse=replace(TINY.coarse, bias=False, num_heads=3, hidden_size=48, block_size=200),
        fine=replace(
            TINY.fine,
            bias=False,
            num_heads=1,
            hidden_size=40,
            block_size=96,
            tie_word_embeddings=False,
            n_codes_given=2,
        ),
        generation=replace(
            TINY.generation,
            semantic_pad_token=100,
            max_coarse_input_length=64,
            max_coarse_history=100,
            sliding_window_len=20,
            max_fine_input_length=96,
            max_fine_history_length=48,
        ),
    ),
    # another semantic rate, six codebooks, a codec of two LSTM layers
    "rates": replace(
        TINY,
        fine=replace(TINY.fine, n_codes_total=6),
        codec=replace(TINY.codec, num_lstm_layers=2, codebook_size=64, num_filters=2),
        generation=replace(TINY.generation, semantic_rate_hz=25.0, n_fine_codebooks=6),
    ),
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Checkpoint]:
    """A checkpoint of each shape, random weights."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: write_random(root / name, config, seed=3) for name, config in SHAPES.items()}


@pytest.fixture(scope="session")
def barks(folders):
    """Shape -> Bark on one device, loaded when first asked for."""
    loaded: dict[str, Bark] = {}

    def load(shape: str) -> Bark:
        if shape not in loaded:
            loaded[shape] = Bark.load(folders[shape], slots=SLOTS, devices=jax.local_devices()[:1])
        return loaded[shape]

    return load


@pytest.fixture(scope="session")
def bark(barks) -> Bark:
    return barks("tiny")


@pytest.fixture(scope="session")
def references(folders):
    """Shape -> the same checkpoint in transformers."""
    from tests.bark_model.reference import Reference

    loaded: dict[str, Reference] = {}

    def load(shape: str) -> Reference:
        if shape not in loaded:
            loaded[shape] = Reference(folders[shape].folder)
        return loaded[shape]

    return load
