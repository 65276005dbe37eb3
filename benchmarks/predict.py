"""How long a workload takes by unit costs: only to choose which setting then runs all of it."""

from collections.abc import Mapping, Sequence

from bark_model.config import BarkConfig
from benchmarks import work


def ours(costs: Mapping[str, float], config: BarkConfig, lengths: Sequence[int], slots: int) -> float:
    """Seconds of our engine, from `ours.units`: every slot busy but for the longest clip's tail."""
    g = config.generation
    clips = [list(work.coarse_runs(config, n)) for n in lengths]
    prompts = [prompt for clip in clips for prompt, _ in clip]
    short = sum(prompt <= g.max_coarse_input_length + 1 for prompt in prompts)
    coarse_steps = work.fewest_steps([sum(drawn for _, drawn in clip) for clip in clips], slots)
    semantic_step = (costs["semantic_step_low"] + costs["semantic_step_high"]) / 2
    return (
        (len(lengths) + short) * costs["semantic_prefill"]
        + work.fewest_steps(lengths, slots) * semantic_step
        + (len(prompts) - short) * costs["coarse_prefill"]
        + coarse_steps * costs["coarse_step"]
        + sum(_fine_forwards(config, work.frames(config, n)) for n in lengths) * costs["fine"]
        + sum(work.frames(config, n) for n in lengths) / g.coarse_rate_hz * costs["audio"]
    )


def transformers(costs: Mapping[str, float], config: BarkConfig, lengths: Sequence[int], rows: int) -> float:
    """Seconds of transformers, from `peers.units`: every coarse window is prefilled, every row as long as its batch.

    A batch that is not full costs its share of a prefill, but whole decode steps.
    """
    g = config.generation
    total = 0.0
    for bucket in buckets(lengths, rows):
        share, frames = len(bucket) / rows, work.frames(config, bucket[0])
        tokens = frames * g.n_coarse_codebooks
        history = (min(done, g.max_coarse_history) for done in range(0, tokens, g.sliding_window_len))
        prompts = sum(g.max_coarse_input_length + 1 + drawn for drawn in history)
        total += g.semantic_prefill_length * share * costs["semantic_position"] + bucket[0] * costs["semantic_step"]
        total += prompts * share * costs["coarse_position"] + tokens * costs["coarse_step"]
        total += len(bucket) * _fine_forwards(config, frames) * costs["fine"]
        total += len(bucket) * frames / g.coarse_rate_hz * costs["audio"]
    return total


def _fine_forwards(config: BarkConfig, frames: int) -> int:
    """Forwards of the fine stage for a row: one for each predicted codebook of each window."""
    g = config.generation
    beyond = max(0, frames - g.max_fine_input_length)
    return (1 + -(-beyond // g.max_fine_history_length)) * (g.n_fine_codebooks - g.n_coarse_codebooks)


def buckets(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """transformers' batches: clips of like length, longest first; the last one may not be full."""
    ordered = sorted(lengths, reverse=True)
    return [ordered[first : first + rows] for first in range(0, len(ordered), rows)]


def busy(lengths: Sequence[int], rows: int) -> float:
    """The share of those batches' row-steps that are some clip's own."""
    return sum(lengths) / sum(len(bucket) * bucket[0] for bucket in buckets(lengths, rows))
