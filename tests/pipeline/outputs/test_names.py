"""Names of files: catalogue row 6."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outputs.names import audio_file_path, content_path, is_ours, safe_name
from pipeline.store.base import check_path

ODD = [
    "../../x",
    "/abs",
    "",
    "x" * 300,
    "a\nb",
    "é",
    unicodedata.normalize("NFD", "é"),
    "A",
    "a",
    "%2e%2e",
    "con",
    "\0",
]


def test_names_that_a_disk_might_fold_differ():
    names = [safe_name(record_id) for record_id in ODD]
    assert len({name.casefold() for name in names}) == len(ODD)


def test_a_name_can_be_read():
    assert safe_name("Chapter 1: Intro!") == "chapter-1-intro-5c4dcdfa1424f99c"


@pytest.mark.parametrize("record_id", ODD)
def test_odd_ids_get_plain_names(record_id: str):
    assert re.fullmatch(r"([a-z0-9-]{1,40}-)?[0-9a-f]{16}", safe_name(record_id))


@given(st.text())
def test_any_id_gets_a_path_every_store_takes(record_id: str):
    path = audio_file_path(record_id, "ab" * 32, "flac", "000001")
    assert re.fullmatch(r"audio/000001/([a-z0-9-]{1,40}-)?[0-9a-f]{16}-abababab\.flac", path)
    check_path(path)


@given(st.text(), st.text())
def test_other_ids_get_other_names(one: str, other: str):
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_content_names():
    assert content_path("tokens", "0123456789abcdef" * 4, "parquet") == "tokens/0123456789abcdef.parquet"


@given(st.text(), st.sampled_from(["flac", "wav", "mp3", "opus"]))
def test_the_names_a_run_gives_are_known(record_id: str, audio_format: str):
    assert is_ours(audio_file_path(record_id, "ab" * 32, audio_format))


@pytest.mark.parametrize("path", ["audio/stray.txt", "notes.md", "audio/song.flac", "tokens/mine.parquet", "x/{}"])
def test_a_users_file_is_none_of_a_run(path: str):
    ours = content_path("failed", "0" * 64, "jsonl")
    assert is_ours(ours)
    assert not is_ours(path.format(ours))
