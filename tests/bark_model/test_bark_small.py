"""bark-small at its real size, random weights, end to end against transformers. Minutes: `make test-slow`."""

from dataclasses import replace

import jax
import pytest

from bark_model import Bark, Request, Result, Sampling
from bark_model.random_checkpoint import bark_preset, write_random
from tests.bark_model.reference import Reference
from tests.bark_model.test_parity import Tally, compare, fine_logit_error


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_bark_small_end_to_end(tmp_path):
    """Two clips of up to 80 semantic tokens (the cap is lowered, nothing else), one with a voice."""
    small = bark_preset(12, 12, 768)
    config = replace(small, generation=replace(small.generation, max_new_tokens=80))
    checkpoint = write_random(tmp_path, config, seed=1, voices=1)
    reference = Reference(tmp_path)
    error, peak = fine_logit_error(checkpoint, reference)
    print(f"\nbark-small fine: max abs logit error {error:.1e} of logits up to {peak:.0f}")
    assert error <= 5e-6 * peak
    bark = Bark.load(checkpoint, slots=2, devices=jax.local_devices()[:1])
    sampling = Sampling.greedy("transformers")
    requests = [
        Request(id="plain", text="A short sentence of speech.", sampling=sampling),
        Request(id="voiced", text="Another one, with a voice.", voice=bark.voice("random_0"), sampling=sampling),
    ]
    tally = Tally(max_fine_error=error)
    for request, result in zip(requests, bark.synthesize(requests), strict=True):
        assert isinstance(result, Result)
        compare(bark, reference, request, result, tally)
    print(f"\nbark-small: {tally.compared} choices equal, {tally.left_out} left out as near ties")
    assert tally.left_out * 10_000 < tally.compared
