"""The causal network: cached decoding equals uncached, padding is never seen, 16-bit weights stay close."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from bark_model.networks import abstract, build, fill, read_parameters
from tests.bark_model.conftest import SHAPES

LENGTH = 40


def network(checkpoint, part: str = "coarse", dtype=jnp.float32):
    graph, state = nnx.split(nnx.eval_shape(build(checkpoint.config, part, dtype)))
    return nnx.merge(graph, jax.tree.map(jnp.asarray, fill(state, read_parameters(checkpoint, part), part, dtype)))


def compiled(model):
    """Its `prefill` and `step` under jit, as the engine runs them."""
    return jax.jit(model.prefill, static_argnums=2), jax.jit(model.step)


def token_ids(config) -> np.ndarray:
    return np.random.default_rng(2).integers(0, config.input_vocab_size, (3, LENGTH))


@pytest.mark.parametrize("shape", SHAPES)
def test_cached_equals_uncached(shape, folders):
    """Prefill a part, then step: the hidden states are those of one prefill over everything."""
    checkpoint = folders[shape]
    model, ids = network(checkpoint), token_ids(checkpoint.config.coarse)
    prefill, step = compiled(model)
    prompt = 11
    _, cache = prefill(model.token_embedding(ids[:, :prompt]), np.full(3, prompt), LENGTH)
    for position in range(prompt, LENGTH):
        hidden, cache = step(ids[:, position], np.full(3, position), cache)
        if position % 7 == 0:
            whole, _ = prefill(model.token_embedding(ids), np.full(3, position + 1), LENGTH)
            np.testing.assert_allclose(hidden, whole, atol=3e-5)


def test_rows_at_different_positions(folders):
    """Ragged prompts in one batch, each stepping at its own place, as in a batch of its own."""
    model, ids = network(folders["tiny"]), token_ids(folders["tiny"].config.coarse)
    prefill, step = compiled(model)
    lengths = np.array([5, 20, 11])
    padded = np.where(np.arange(20) < lengths[:, None], ids[:, :20], 0)
    _, cache = prefill(model.token_embedding(padded), lengths, LENGTH)
    for number in range(6):
        token = ids[np.arange(3), lengths + number]
        hidden, cache = step(token, lengths + number, cache)
    for row, length in enumerate(lengths):
        alone, _ = prefill(model.token_embedding(ids[row : row + 1]), np.array([length + 6]), LENGTH)
        np.testing.assert_allclose(hidden[row], alone[0], atol=3e-5)


@pytest.mark.parametrize("garbage", ["nan", "max id"])
def test_padding_is_invisible(garbage, folders):
    """NaN embeddings or the largest id behind a row's length change no bit, neither now nor in later steps."""
    config = folders["tiny"].config.coarse
    model, ids = network(folders["tiny"]), token_ids(config)
    prefill, step = compiled(model)
    length = np.full(3, 9)
    clean = model.token_embedding(np.where(np.arange(LENGTH) < 9, ids, 0))
    if garbage == "nan":
        dirty = clean.at[:, 9:].set(jnp.nan)
    else:
        dirty = model.token_embedding(np.where(np.arange(LENGTH) < 9, ids, config.input_vocab_size - 1))
    for number in range(3):
        if number == 0:
            (one, cache), (other, dirty_cache) = (prefill(x, length, LENGTH) for x in (clean, dirty))
        else:
            one, cache = step(ids[:, 8 + number], length - 1 + number, cache)
            other, dirty_cache = step(ids[:, 8 + number], length - 1 + number, dirty_cache)
        assert np.isfinite(one).all()
        assert np.array_equal(one, other)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_logits_are_as_close_as_torchs(dtype, folders, references):
    """Rounding to 16 bits costs us no more than it costs transformers in the same dtype."""
    config, ids = folders["tiny"].config.coarse, token_ids(folders["tiny"].config.coarse)
    theirs = copy.deepcopy(references("tiny").model.coarse_acoustics).to(getattr(torch, dtype))
    with torch.no_grad():
        exact = references("tiny").model.coarse_acoustics(torch.tensor(ids)).logits[:, -1].numpy()
        rounded = theirs(torch.tensor(ids)).logits[:, -1].float().numpy()
    model = network(folders["tiny"], dtype=jnp.dtype(dtype))
    hidden, _ = model.prefill(model.token_embedding(ids), np.full(3, LENGTH), LENGTH)
    logits = model.logits(hidden, 0, config.output_vocab_size)
    assert logits.dtype == np.float32
    ours, torchs = (np.sqrt(np.mean((x - exact) ** 2)) for x in (np.asarray(logits), rounded))
    assert 0 < ours <= 1.2 * torchs


def test_logits_of_some_classes_are_those_of_all(folders):
    model, config = network(folders["tiny"]), folders["tiny"].config.coarse
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(2, config.hidden_size)), jnp.float32)
    everything = model.logits(hidden, 0, config.output_vocab_size)
    np.testing.assert_allclose(model.logits(hidden, 100, 64), everything[:, 100:164], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "millions"),
    [((24, 16, 1024), (446.0, 327.8, 311.7)), ((12, 12, 768), (193.0, 104.3, 92.2))],
    ids=["bark", "bark-small"],
)
def test_real_sizes(size, millions):
    """Shapes of suno/bark and suno/bark-small, nothing allocated: parameters in millions as the checkpoints have."""
    from bark_model.random_checkpoint import bark_preset

    config = bark_preset(*size)
    for part, expected in zip(("semantic", "coarse", "fine"), millions, strict=True):
        leaves = jax.tree.leaves(abstract(config, part, jnp.float32)[1])
        assert sum(leaf.size for leaf in leaves) / 1e6 == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("size", [(24, 16, 1024), (12, 12, 768)], ids=["bark", "bark-small"])
def test_real_sizes_trace_through_every_stage(size):
    """A semantic entry and step, a coarse window, a fine window at the real shapes, abstractly."""
    from bark_model import coarse, fine, semantic
    from bark_model.random_checkpoint import bark_preset
    from bark_model.sampling import RowSampling

    config = bark_preset(*size)
    g, slots = config.generation, 8
    shape = jax.ShapeDtypeStruct
    sampling = jax.eval_shape(lambda: RowSampling.empty(slots))
    whole = shape((slots,), jnp.int32)

    def run(part, function, *arguments):
        graph, state = abstract(config, part, jnp.bfloat16)
        return jax.eval_shape(lambda state, *rest: function(nnx.merge(graph, state), *rest), state, *arguments)

    state = jax.eval_shape(lambda: semantic.empty_state(config, slots, jnp.bfloat16))
    rows = semantic.SemanticRows(shape((slots, 2, 256), jnp.int32), whole, whole, whole, sampling)
    entered = run("semantic", lambda model, state, rows: semantic.enter(model, state, rows, g), state, rows)
    stepped, _, _ = run("semantic", lambda model, state: semantic.run_steps(model, state, g, 4), entered)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), stepped) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    assert stepped.cache.keys[0].shape == (slots, size[1], 1024, size[2] // size[1])

    state = jax.eval_shape(lambda: coarse.empty_state(config, slots, jnp.bfloat16))
    prompts = coarse.CoarsePrompts(shape((slots, 887), jnp.int32), whole, whole)
    state = run("coarse", coarse.enter, state, prompts)
    window = lambda model, state, rows: coarse.run_window(model, state, rows, config)  # noqa: E731
    state, tokens, finite = run("coarse", window, state, coarse.CoarseRows(whole, sampling))
    assert state.cache.keys[0].shape == (slots, size[1], 1024, size[2] // size[1])  # 947 in whole blocks
    assert (tokens.shape, finite.shape) == ((slots, 60), (slots,))

    buffer = fine.FineRows(shape((slots, 8, 1024), jnp.int32), whole, whole, sampling)
    codes, finite = run("fine", lambda model, rows: fine.run_window(model, rows, g), buffer)
    assert (codes.shape, finite.shape) == ((slots, 8, 1024), (slots,))
