"""The semantic prompt and when a row stops."""

from dataclasses import replace

import numpy as np
import pytest

from bark_model import Request, Result, Sampling
from bark_model.random_checkpoint import bark_preset
from bark_model.semantic import semantic_prompt, token_limit

G = bark_preset(12, 12, 768).generation


def test_prompt_merges_text_above_history():
    prompt = semantic_prompt(np.array([5, 6]), np.array([1, 2, 3]), G)
    assert prompt.shape == (2, 256)
    assert prompt[0, :3].tolist() == [10_053, 10_054, 129_595]
    assert prompt[1, :4].tolist() == [1, 2, 3, 10_000]


def test_prompt_without_a_voice_has_pads_for_history():
    assert (semantic_prompt(np.array([5]), None, G)[1] == 10_000).all()


def test_prompt_takes_the_last_256_of_a_long_voice():
    assert semantic_prompt(np.array([5]), np.arange(600), G)[1].tolist() == list(range(344, 600))


@pytest.mark.parametrize(
    ("seconds", "tokens", "stop"),
    [
        (None, 768, "cap"),
        (0, 1, "max_duration"),  # a token is appended before the clock is looked at
        (0.02, 1, "max_duration"),  # 1 / 49.9 = 0.02004 > 0.02
        (1.0, 50, "max_duration"),  # 49 / 49.9 = 0.98, 50 / 49.9 = 1.002
        (10 / 49.9, 11, "max_duration"),  # exactly ten tokens are not more than the limit
        (60, 768, "cap"),
    ],
)
def test_token_limit(seconds, tokens, stop):
    assert token_limit(seconds, G) == (tokens, stop)


def long_running(bark) -> Request:
    """A request that runs for at least 20 tokens when left alone."""
    for i in range(40):
        request = Request(id=str(i), text=f"text number {i}", sampling=Sampling.greedy())
        [result] = bark.synthesize([request], to="semantic")
        if isinstance(result, Result) and result.stop_reason == "eos" and len(result.semantic) >= 20:
            return request
    raise AssertionError("no text of 40 runs for 20 tokens")


def test_stop_reasons(bark):
    """One batch whose rows stop for each of the four reasons."""
    request = long_running(bark)
    greedy = request.sampling

    def row(name: str, compat="suno", **semantic) -> Request:
        sampling = replace(greedy, compat=compat, semantic=replace(greedy.semantic, **semantic))
        return replace(request, id=name, sampling=sampling)

    rows = [
        row("eos"),
        row("duration", max_duration_s=5 / bark.config.generation.semantic_rate_hz),
        row("probable", compat="transformers", min_eos_p=1e-6),
    ]
    eos, duration, probable = bark.synthesize(rows, to="semantic")
    assert eos.stop_reason == "eos"
    assert duration.stop_reason == "max_duration"
    assert len(duration.semantic) == 6
    assert np.array_equal(duration.semantic, eos.semantic[:6])
    assert getattr(probable, "error", None) == "NoSpeech" or probable.stop_reason == "min_eos_p"


def test_cap(bark):
    hot = Sampling()
    no_end = replace(hot, semantic=replace(hot.semantic, temperature=3.0, min_eos_p=None))
    results = bark.synthesize([Request(id=str(i), text="on and on", sampling=no_end) for i in range(8)], to="semantic")
    capped = [r for r in results if isinstance(r, Result) and r.stop_reason == "cap"]
    assert capped
    assert all(len(r.semantic) == bark.config.generation.max_new_tokens for r in capped)


def test_zero_tokens_is_no_speech(bark):
    """The end token as the very first: a failure that names the stage, and the neighbours are kept."""
    sampling = Sampling(compat="transformers")
    at_once = replace(sampling, semantic=replace(sampling.semantic, min_eos_p=1e-6))
    outcomes = bark.synthesize(
        [Request(id="silent", text="hush", sampling=at_once), Request(id="loud", text="Hello there")], to="semantic"
    )
    assert (outcomes[0].error, outcomes[0].stage) == ("NoSpeech", "semantic")
    assert outcomes[0].message == ("the model ended (min_eos_p) before the first token: try another seed or text")
    assert isinstance(outcomes[1], Result)
