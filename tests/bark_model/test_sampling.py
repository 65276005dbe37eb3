"""Each filter order against the references' own steps, and draws against the exact softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from bark_model import Request, Sampling, SemanticSampling, SettingError
from bark_model.sampling import draw, end_probability, filter_logits, key_data, row_sampling

NUM_CLASSES = 40
LOGITS = np.random.default_rng(5).normal(0, 2, NUM_CLASSES).astype(np.float32)

SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 0.7, "top_k": 5},
    {"temperature": 0.7, "top_p": 0.8},
    {"temperature": 1.6, "top_k": 10, "top_p": 0.7},
    {"temperature": 0.4, "top_k": 3, "top_p": 0.95},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 2.0, "top_p": 1e-6},
    {"temperature": 1.0, "top_k": 1000, "top_p": 1.0},
]


def request(compat: str, settings: dict, row_id: str = "r") -> Request:
    semantic = SemanticSampling(**({"min_eos_p": None} | settings))
    return Request(id=row_id, sampling=Sampling(compat=compat, semantic=semantic))


def suno_distribution(logits: np.ndarray, temperature: float, top_k=None, top_p=None) -> np.ndarray:
    """Suno's order, in numpy: top_p over all classes, then top_k over what is left, then temperature."""
    logits = logits.astype(np.float64).copy()
    if top_p is not None:
        order = np.argsort(logits)[::-1]
        exponentials = np.exp(logits[order] - logits.max())
        cumulative = np.cumsum(exponentials / exponentials.sum())
        remove = np.concatenate([[False], (cumulative > top_p)[:-1]])
        logits[order[remove]] = -np.inf
    if top_k is not None:
        smallest = np.sort(logits)[::-1][min(top_k, len(logits)) - 1]
        logits[logits < smallest] = -np.inf
    exponentials = np.exp((logits - logits.max()) / temperature)
    return exponentials / exponentials.sum()


def transformers_distribution(logits: np.ndarray, temperature: float, top_k=None, top_p=None) -> np.ndarray:
    """transformers' own warpers in their order: temperature, top_k, top_p."""
    scores = torch.tensor(logits, dtype=torch.float64)[None]
    scores = TemperatureLogitsWarper(temperature)(None, scores) if temperature != 1.0 else scores
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k is not None else scores
    scores = TopPLogitsWarper(top_p)(None, scores) if top_p is not None and top_p < 1 else scores
    return torch.softmax(scores, -1)[0].numpy()


EXACT = {"suno": suno_distribution, "transformers": transformers_distribution}


@pytest.mark.parametrize("compat", EXACT)
@pytest.mark.parametrize("settings", SETTINGS)
def test_filtered_softmax_is_the_references(compat, settings):
    row = row_sampling("semantic", [request(compat, settings)])
    ours = np.asarray(jax.nn.softmax(filter_logits(jnp.asarray(LOGITS)[None], row), -1))[0]
    exact = EXACT[compat](LOGITS, **settings)
    assert np.array_equal(ours > 0, exact > 0)
    np.testing.assert_allclose(ours, exact, atol=2e-6)


def test_the_two_orders_differ():
    """Hot logits: measured before temperature top_p keeps fewer classes than after it."""
    settings = {"temperature": 1.6, "top_p": 0.7}
    suno, theirs = (EXACT[compat](LOGITS, **settings) for compat in ("suno", "transformers"))
    assert (suno > 0).sum() < (theirs > 0).sum()


@pytest.mark.parametrize("compat", EXACT)
@pytest.mark.parametrize("settings", SETTINGS[:5])
def test_frequencies_of_many_draws(compat, settings):
    """20,000 draws: every class within five standard deviations of its exact probability, cut classes never."""
    draws = 20_000
    row = row_sampling("semantic", [request(compat, settings)])
    rows = jax.tree.map(lambda leaf: np.repeat(leaf, draws, axis=0), row)
    filtered = filter_logits(jnp.broadcast_to(LOGITS, (draws, NUM_CLASSES)), rows)
    tokens = np.asarray(draw(filtered, rows, jnp.arange(draws)))
    frequencies = np.bincount(tokens, minlength=NUM_CLASSES) / draws
    exact = EXACT[compat](LOGITS, **settings)
    deviation = np.sqrt(exact * (1 - exact) / draws)
    assert (np.abs(frequencies - exact) <= 5 * deviation + 1e-9).all()


def test_fine_draws_are_independent_across_positions():
    """[S, T, V]: frequencies over the positions of one row, and two rows never share their noise."""
    from bark_model import FineSampling

    requests = [Request(id=name, sampling=Sampling(fine=FineSampling(temperature=1.0))) for name in "ab"]
    rows = row_sampling("fine", requests)
    logits = jnp.broadcast_to(LOGITS, (2, 10_000, NUM_CLASSES))
    tokens = np.asarray(draw(logits, rows, jnp.zeros(2, int)))
    exact = suno_distribution(LOGITS, 1.0)
    for row in tokens:
        frequencies = np.bincount(row, minlength=NUM_CLASSES) / 10_000
        assert (np.abs(frequencies - exact) <= 5 * np.sqrt(exact * (1 - exact) / 10_000) + 1e-9).all()
    assert np.mean(tokens[0] == tokens[1]) == pytest.approx((exact**2).sum(), abs=0.02)


def test_temperature_zero_is_argmax():
    rows = row_sampling("semantic", [request("suno", {"temperature": 0, "top_k": 7, "top_p": 0.5})] * 3)
    filtered = filter_logits(jnp.broadcast_to(LOGITS, (3, NUM_CLASSES)), rows)
    assert np.asarray(draw(filtered, rows, jnp.arange(3))).tolist() == [LOGITS.argmax()] * 3


def test_fine_temperature_of_one_is_argmax_for_transformers_only():
    from bark_model import FineSampling

    fine = FineSampling(temperature=1.0)
    both = [Request(id="a", sampling=Sampling(compat=c, fine=fine)) for c in ("suno", "transformers")]
    assert row_sampling("fine", both).temperature.tolist() == [1.0, 0.0]


def test_a_filtered_neighbour_changes_nothing():
    """Rows without a filter take the same path whether or not another row has one."""
    plain, filtered = request("suno", {"temperature": 0.7}), request("suno", {"temperature": 0.7, "top_k": 2})
    logits = jnp.broadcast_to(LOGITS, (2, NUM_CLASSES))
    alone = filter_logits(logits, row_sampling("semantic", [plain, plain]))
    beside = filter_logits(logits, row_sampling("semantic", [plain, filtered]))
    assert np.array_equal(alone[0], beside[0])


def test_end_probability_of_each_reference():
    settings = {"temperature": 0.5, "top_k": 8}
    end = int(np.argsort(LOGITS)[-2])
    rows = row_sampling("semantic", [request("suno", settings), request("transformers", settings)])
    logits = jnp.broadcast_to(LOGITS, (2, NUM_CLASSES))
    suno, theirs = np.asarray(end_probability(logits, filter_logits(logits, rows), rows, end))
    assert suno == pytest.approx(suno_distribution(LOGITS, **settings)[end], abs=1e-6)
    assert theirs == pytest.approx(suno_distribution(LOGITS, 1.0)[end], abs=1e-6)


def test_keys_differ_in_every_part_and_repeat():
    base = key_data(1, "a", "semantic", 0)
    others = [key_data(2, "a", "semantic", 0), key_data(1, "b", "semantic", 0), key_data(1, "a", "coarse", 0)]
    others += [key_data(1, "a", "semantic", 1), key_data(1, "as", "emantic", 0)]
    assert all(not np.array_equal(base, other) for other in others)
    assert base.tolist() == [698343298, 2497860477]  # another value here changes every user's stored results


TEMPERATURE = "must be 0 to 100: 0 is greedy, 0.7 is Bark's own"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, f"semantic.temperature is -1, {TEMPERATURE}"),
        ({"top_k": 0}, "semantic.top_k is 0, must be 1 to 1.04858e+06: null keeps every class"),
        ({"top_p": 1.5}, "semantic.top_p is 1.5, must be 1e-06 to 1: null keeps every class"),
        ({"min_eos_p": 2}, "semantic.min_eos_p is 2, must be 1e-06 to 1: null waits for the end token itself"),
        (
            {"temperature": float("nan")},
            "semantic.temperature is nan, must be 0 to 100: 0 is greedy, 0.7 is Bark's own",
        ),
        ({"temperature": True}, "semantic.temperature is True, must be 0 to 100: 0 is greedy, 0.7 is Bark's own"),
    ],
)
def test_settings_are_refused(settings, message):
    with pytest.raises(SettingError) as refusal:
        SemanticSampling(**settings)
    assert str(refusal.value) == message
