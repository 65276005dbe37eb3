"""Failed records as lines: exact ids, short messages, no secrets (catalogue rows 6 and 28)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outputs.failed import excerpt_line, failed_lines, read_failed
from pipeline.records import FailedRecord


def failed(**values) -> FailedRecord:
    return FailedRecord(
        **{"id": "a", "source": "in.txt", "stage": "text", "error": "EmptyText", "message": "x"} | values
    )


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_ids_come_back_exactly_and_lines_stay_lines(record_id: str):
    data = failed_lines([failed(id=record_id), failed()])
    assert data.count(b"\n") == 2
    assert [record.id for record in read_failed(data.splitlines())] == [record_id, "a"]


def test_the_fields_are_those_of_the_contract():
    (line,) = failed_lines([failed(attempts=3)]).splitlines()
    assert json.loads(line) == {
        "id": "a",
        "source": "in.txt",
        "stage": "text",
        "error": "EmptyText",
        "message": "x",
        "attempts": 3,
    }


def test_long_messages_are_cut_to_one_line():
    assert excerpt_line("a\n b\t\u2028c" + "x" * 100_000) == "a b c" + "x" * 294 + "…"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("https://user:hunter22@host/x", "https://[hidden]@host/x"),
        ("Authorization: Bearer abcdef123", "Authorization: Bearer [hidden]"),
        ('{"password": "hunter22"}', '{"password": "[hidden]"}'),
        ("https://x/y?token=hunter22&z=1", "https://x/y?token=[hidden]&z=1"),
        ("https://x/y?X-Goog-Signature=0af3bb", "https://x/y?X-Goog-Signature=[hidden]"),
        ("api_key=hunter22, then", "api_key=[hidden], then"),
        ("got ya29.a0AfH6SMBxyz", "got [hidden]"),
        ("got hf_abcdefghijklmnopqrst", "got [hidden]"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n", "[hidden]"),
        ("semantic token: 10001 is over 9999", "semantic token: 10001 is over 9999"),
    ],
)
def test_secrets_are_hidden(message: str, shown: str):
    assert excerpt_line(message) == shown
    assert excerpt_line(excerpt_line(message)) == shown
