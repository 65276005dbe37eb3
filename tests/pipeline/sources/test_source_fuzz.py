"""Any bytes at all: a reader yields records and failures, or raises SourceError, and ends."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.records import FailedRecord, Record
from pipeline.sources import SourceError, csv, jsonl, parquet, text

JUNK = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda found: found.encode("utf-8", "surrogatepass")),
    st.text(alphabet='a,"\n\r\0;é', max_size=100).map(str.encode),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ROWS = st.lists(
    st.dictionaries(st.sampled_from(["id", "text", "voice", "language", "seed", "document", "index", "x"]), JSON),
    max_size=5,
)


def drain(reader, data: bytes) -> list:
    try:
        found = list(reader(io.BytesIO(data), "fuzz"))
    except SourceError:
        return []
    for item in found:
        assert isinstance(item, Record | FailedRecord)
        item.id.encode()
        if isinstance(item, FailedRecord):
            assert "\n" not in item.message
            assert len(item.message) < 300
        else:
            item.text.encode()
    return found


@pytest.mark.parametrize("reader", [text.read, jsonl.read, csv.read, parquet.read])
@given(data=JUNK)
def test_bytes(reader, data):
    drain(reader, data)


@given(data=JUNK)
def test_csv_below_a_good_header(data):
    drain(csv.read, b"id,text,seed\n" + data)


@given(data=JUNK, good=st.integers(0, 3))
def test_good_csv_rows_before_and_after_junk_run(data, good):
    rows = "".join(f"{i},Good {i}.\n" for i in range(good)).encode()
    last = b"last,One.\n"
    found = drain(csv.read, b"id,text\n" + rows + data.replace(b'"', b"").replace(b"\r", b"") + b"\n" + last)
    assert [record.id for record in found[:good]] == [str(i) for i in range(good)]
    assert found[-1].id == "last"


@given(rows=ROWS)
def test_json_of_any_types_gives_an_item_a_line(rows):
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    assert len(drain(jsonl.read, data)) == len(rows)


def parquet_file() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"id": ["a", "b", None], "text": ["One.", "Two.", "Three."], "seed": [1, None, 3]})
    pq.write_table(table, sink, compression="zstd", row_group_size=2, write_page_checksum=True)
    return sink.getvalue()


PARQUET = parquet_file()


@settings(max_examples=400)
@given(changes=st.lists(st.tuples(st.integers(0, len(PARQUET) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_parquet_with_changed_bytes(changes):
    data = bytearray(PARQUET)
    for place, value in changes:
        data[place] = value
    drain(parquet.read, bytes(data))


@given(kept=st.integers(0, len(PARQUET) - 1))
def test_parquet_cut_short(kept):
    assert drain(parquet.read, PARQUET[:kept]) == []


@given(
    columns=st.dictionaries(
        st.sampled_from(["id", "text", "seed", "index", "voice"]),
        st.sampled_from([[1, 2], ["a", None], [None, None], [1.5, 2.0], [b"a", b"\xff"], [[1], [2]], [{"a": 1}, None]]),
        min_size=1,
    )
)
def test_parquet_of_any_column_types(columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    drain(parquet.read, sink.getvalue())
