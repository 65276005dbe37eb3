"""The sliding windows, on numbers alone, against Bark's own figures."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from bark_model.coarse import CoarseRow, flatten_codes, num_coarse_tokens, unflatten_ids, voice_history
from bark_model.random_checkpoint import bark_preset
from bark_model.voices import Voice

CONFIG = bark_preset(12, 12, 768)
G = CONFIG.generation


def voice(num_semantic: int, num_frames: int) -> Voice:
    fine = np.arange(8 * num_frames).reshape(8, num_frames) % 1024
    return Voice(name="v", semantic=np.arange(num_semantic) % 10_000, coarse=fine[:2], fine=fine)


@pytest.mark.parametrize(("semantic", "coarse"), [(1, 2), (100, 300), (256, 768), (499, 1500), (768, 2308)])
def test_number_of_tokens(semantic, coarse):
    assert num_coarse_tokens(semantic, G) == coarse


def test_codes_flatten_frame_by_frame():
    codes = np.array([[1, 2, 3], [4, 5, 6]])
    flat = flatten_codes(codes, G)
    assert flat.tolist() == [10_001, 11_028, 10_002, 11_029, 10_003, 11_030]
    assert np.array_equal(unflatten_ids(flat, G), codes)


def test_ids_behind_the_second_codebook_fold_by_remainder():
    """transformers leaves 12048..12095 open on odd steps: 12050 becomes code 2."""
    assert unflatten_ids(np.array([10_000, 12_050]), G).tolist() == [[0], [2]]


@pytest.mark.parametrize(
    ("num_semantic", "num_frames", "semantic", "coarse"),
    [
        (500, 800, 209, 626),  # longer than the history: 209 * ratio = 628, less 2
        (101, 400, 100, 299),  # an odd number of semantic tokens loses its first
        (400, 50, 33, 97),  # few frames: floor(100 / 3.006) = 33
        (1, 2, 1, 2),  # none would be left: [-0:] takes all, then 2 are dropped
    ],
)
def test_history_is_aligned_and_loses_its_last_frame(num_semantic, num_frames, semantic, coarse):
    kept_semantic, kept_coarse = voice_history(voice(num_semantic, num_frames), G)
    assert (len(kept_semantic), len(kept_coarse)) == (semantic, coarse)
    assert kept_semantic[-1] == num_semantic - 1
    assert kept_coarse[-1] == flatten_codes(voice(num_semantic, num_frames).coarse, G)[-3]


def walk(row: CoarseRow) -> list[tuple[np.ndarray, int, bool]]:
    """All windows of a row whose draws are counted up: ids, length, and whether the old cache serves."""
    windows = []
    while not row.done:
        windows.append((*row.window(), row.continues))
        start = 10_000 + row.num_done % 1000
        row.advance(np.arange(start, start + G.sliding_window_len))
    return windows


def test_the_longest_clip_costs_what_bark_says():
    """768 semantic tokens, 626 of history: 39 windows, 2308 decode steps, 34,589 prefill positions."""
    row = CoarseRow(np.arange(768), voice(500, 800), CONFIG)
    windows = walk(row)
    assert len(windows) == row.num_windows == 39
    assert row.num_tokens == row.num_done == 2308
    assert sum(length for _, length, _ in windows) == 34_589
    assert max(length for _, length, _ in windows) == 887
    assert not any(continues for _, _, continues in windows)  # with such a voice every window moves


def test_first_window_without_a_voice():
    """All semantic tokens that fit, pads, the infer token, and no history."""
    [(ids, length, _), *_] = walk(CoarseRow(np.arange(5), None, CONFIG))
    assert length == 257
    assert ids[:6].tolist() == [0, 1, 2, 3, 4, 12_048]
    assert ids[255:257].tolist() == [12_048, 12_050]


@pytest.mark.parametrize("with_voice", [None, voice(60, 90), voice(500, 800)], ids=["none", "short", "long"])
def test_a_window_continues_exactly_when_it_is_the_old_one_and_what_was_drawn(with_voice):
    """`continues` is what lets the KV cache be kept: it must be true for equal prompts only."""
    windows = walk(CoarseRow(np.arange(600), with_voice, CONFIG))
    assert not windows[0][2]
    for (old, old_length, _), (new, new_length, continues) in itertools.pairwise(windows):
        extends = new_length == old_length + G.sliding_window_len and np.array_equal(old[:old_length], new[:old_length])
        assert continues == extends


def test_a_clip_without_voice_prefills_once_for_its_first_eleven_windows():
    windows = walk(CoarseRow(np.arange(600), None, CONFIG))
    assert [continues for _, _, continues in windows[:12]] == [False] + [True] * 10 + [False]
    assert [length for _, length, continues in windows if not continues][:2] == [257, 887]


def test_the_window_slides_with_the_audio():
    row = CoarseRow(np.arange(768), None, CONFIG)
    row.advance(np.full(2_000, 10_007))
    ids, length = row.window()
    at = round(2_000 / G.coarse_per_semantic)
    assert at == 665
    assert ids[: 768 - 456].tolist()[:256] == list(range(456, 712))
    assert length == 887
    assert (ids[257:887] == 10_007).all()


def test_the_last_window_is_cut_to_the_clip():
    row = CoarseRow(np.arange(1), None, CONFIG)
    row.advance(np.arange(10_000, 10_060))
    assert row.done
    assert row.codes().shape == (2, 1)


def test_python_rounds_half_to_even():
    """At a ratio of 4, two tokens are half a semantic token: round(0.5) is 0 and round(1.5) is 2."""
    generation = replace(G, semantic_rate_hz=37.5, sliding_window_len=2)
    row = CoarseRow(np.arange(300), voice(200, 400), replace(CONFIG, generation=generation))
    starts = []
    for _ in range(4):
        starts.append(int(row.window()[0][0]))
        row.advance(np.full(2, 10_000))
    first = starts[0]
    assert [start - first for start in starts] == [0, 0, 1, 2]
