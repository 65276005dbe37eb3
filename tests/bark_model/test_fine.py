"""The overlapping windows of the fine stage, against Suno's arithmetic written out."""

import numpy as np
import pytest

from bark_model.fine import FineRow
from bark_model.random_checkpoint import bark_preset
from bark_model.voices import Voice

G = bark_preset(12, 12, 768).generation


def voice(num_frames: int) -> Voice:
    fine = np.arange(8 * num_frames).reshape(8, num_frames) % 1024
    return Voice(name="v", semantic=np.arange(10), coarse=fine[:2], fine=fine)


def places(num_frames: int, history: int) -> list[tuple[int, int]]:
    """(fill_from inside the window, window number) by walking a row that predicts its own window number."""
    row = FineRow(np.zeros((2, num_frames), int), voice(history) if history else None, G)
    seen = []
    while not row.done:
        buffer, fill_from = row.window()
        assert buffer.shape == (8, 1024)
        seen.append((fill_from, row.index))
        row.advance(np.full((8, 1024), row.index))
    return seen


@pytest.mark.parametrize(
    ("num_frames", "history", "expected"),
    [
        (1, 0, [0]),  # one window, filled from its start
        (1024, 0, [0]),
        (1025, 0, [0, 511]),  # the second window starts at 1 and fills from 512
        (1154, 0, [0, 382]),  # the longest clip
        (300, 512, [512]),  # the voice stands before it
        (600, 512, [512, 512]),  # the second window starts at 88 and fills from 600
        (1154, 512, [512, 512, 512]),
        (100, 900, [512]),  # only the last 512 frames of a voice are used
    ],
)
def test_where_windows_fill(num_frames, history, expected):
    assert [fill for fill, _ in places(num_frames, history)] == expected


def test_short_rows_are_padded_as_if_alone():
    row = FineRow(np.array([[1, 2, 3], [4, 5, 6]]), voice(2), G)
    buffer, fill_from = row.window()
    assert fill_from == 2
    assert buffer[0, :6].tolist() == [0, 1, 1, 2, 3, 1024]
    assert buffer[2, :4].tolist() == [*voice(2).fine[2].tolist(), 1024, 1024]
    assert (buffer[:, 5:] == 1024).all()


def test_only_what_is_behind_the_fill_position_is_taken():
    row = FineRow(np.zeros((2, 1025), int), None, G)
    row.window()
    row.advance(np.full((8, 1024), 7))
    row.window()
    row.advance(np.full((8, 1024), 9))
    codes = row.codes()
    assert codes.shape == (8, 1025)
    # window 1 stands at 1..1024 and fills from 512 on
    assert (codes[:, :512] == 7).all()
    assert (codes[:, 512:] == 9).all()


def test_history_is_not_part_of_the_result():
    row = FineRow(np.full((2, 4), 5), voice(20), G)
    row.advance(np.full((8, 1024), 3))
    assert row.codes().shape == (8, 4)
