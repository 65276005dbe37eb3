"""Range checks of given tokens: row 11 of the catalogue, by literal text."""

import numpy as np
import pytest

from bark_model.outcomes import Request
from bark_model.random_checkpoint import TINY
from bark_model.tokens import TokenError, check_audio, check_tokens

LONGEST = 8 * 90
LONGEST_FRAMES = 1082


def fault(**tokens) -> tuple[str, str]:
    with pytest.raises(TokenError) as caught:
        check_tokens(Request(id="a", **tokens), TINY)
    assert "\n" not in str(caught.value)
    return caught.value.stage, str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "stage", "says"),
    [
        ({"semantic": [1, 100]}, "semantic", "semantic token 100 is out of range, must be 0 to 99"),
        ({"semantic": [-1, 100]}, "semantic", "semantic token -1 is out of range, must be 0 to 99"),
        ({"semantic": [2**31]}, "semantic", "semantic token 2147483648 is out of range, must be 0 to 99"),
        ({"semantic": [2**70]}, "semantic", "semantic tokens have dtype object, must be integers"),
        ({"semantic": [1.5]}, "semantic", "semantic tokens have dtype float64, must be integers"),
        ({"semantic": [1, None]}, "semantic", "semantic tokens have dtype object, must be integers"),
        ({"semantic": ["a"]}, "semantic", "semantic tokens have dtype <U1, must be integers"),
        ({"semantic": np.zeros(0, int)}, "semantic", "semantic has 0 tokens a row, must be 1 to 720: split it"),
        (
            {"semantic": np.zeros(LONGEST + 1, int)},
            "semantic",
            "semantic has 721 tokens a row, must be 1 to 720: split it",
        ),
        ({"semantic": [[1]]}, "semantic", "semantic tokens have shape (1, 1), must be (tokens,)"),
        ({"coarse": [[1, 2], [3]]}, "coarse", "coarse is ragged, must be an array of integers"),
        ({"coarse": [[1], [2], [3]]}, "coarse", "coarse tokens have shape (3, 1), must be (2, frames)"),
        ({"coarse": [[1], [64]]}, "coarse", "coarse token 64 is out of range, must be 0 to 63"),
        ({"fine": np.zeros((2, 5), int)}, "fine", "fine tokens have shape (2, 5), must be (8, frames)"),
        ({"fine": np.full((8, 2), 64)}, "fine", "fine token 64 is out of range, must be 0 to 63"),
        (
            {"fine": np.zeros((8, LONGEST_FRAMES + 1), int)},
            "fine",
            "fine has 1083 tokens a row, must be 1 to 1082: split it",
        ),
    ],
)
def test_bad_tokens(tokens, stage, says):
    assert fault(**tokens) == (stage, says)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int64", "uint64", ">i4"])
def test_any_integer_type_becomes_int32(dtype):
    tokens = {"semantic": np.arange(99).astype(dtype), "coarse": np.ones((2, 3), dtype), "fine": np.ones((8, 3), dtype)}
    checked = check_tokens(Request(id="a", **tokens), TINY)
    assert checked.keys() == tokens.keys()
    for stage, array in checked.items():
        assert array.dtype == np.int32
        assert np.array_equal(array, tokens[stage])


def test_longest_tokens_pass():
    longest = np.zeros((2, LONGEST_FRAMES), int)
    assert (
        check_tokens(Request(id="a", semantic=np.zeros(LONGEST, int), coarse=longest), TINY)["coarse"].shape
        == longest.shape
    )


def test_a_text_holds_no_tokens():
    assert check_tokens(Request(id="a", text="x"), TINY) == {}


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (np.zeros(0, "f4"), "audio is float32 of shape (0,), must be float and (samples,)"),
        (np.zeros((1, 5), "f4"), "audio is float32 of shape (1, 5), must be float and (samples,)"),
        (np.zeros(5, "i2"), "audio is int16 of shape (5,), must be float and (samples,)"),
        ([[0.5], [0.5, 1]], "audio is ragged, must be float and (samples,)"),
        (np.array([0, np.nan], "f4"), "audio holds NaN or infinity: repair the file"),
        (np.array([0, -np.inf]), "audio holds NaN or infinity: repair the file"),
    ],
)
def test_bad_audio(audio, says):
    with pytest.raises(TokenError) as caught:
        check_audio(audio)
    assert (caught.value.stage, str(caught.value)) == ("audio", says)


def test_good_audio():
    check_audio(np.zeros(5, np.float32))
