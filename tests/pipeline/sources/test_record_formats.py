"""Each format plain, .gz and .zst; what fails by line, and what concerns the whole file."""

import gzip
import io
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunking import LANGUAGES
from pipeline.records import FailedRecord, Record
from pipeline.sources import SourceError, read_shard
from pipeline.sources.fields import ID_LIMIT_BYTES
from pipeline.sources.lines import LINE_LIMIT_BYTES

COMPRESSIONS = ["", ".gz", ".zst"]
SEED = "must be a whole number from 0 to 4294967295"
ONE_OF = f"must be one of {' '.join(LANGUAGES)}"
FULL = {
    "id": "one",
    "text": "First line.",
    "voice": "v2/en_speaker_6",
    "language": "en",
    "seed": 2**32 - 1,
    "document": "book",
    "index": 3,
}


def parquet(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, write_page_checksum=True)
    return sink.getvalue()


def jsonl(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


SAME = {
    "x.jsonl": jsonl(FULL, {"text": "Second."}),
    "x.csv": b"id,text,voice,language,seed,document,index\none,First line.,v2/en_speaker_6,en,4294967295,book,3\n"
    b",Second.,,,,,\n",
    "x.parquet": parquet(**{name: [value, "Second." if name == "text" else None] for name, value in FULL.items()}),
}


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_records(packed, read, name, compression):
    whole, bare = read(name + compression, packed(SAME[name], compression))
    source = name + compression
    first = 2 if name.endswith(".csv") else 1
    assert whole == Record(**FULL, source=source, line=first)
    assert bare == Record(id=f"{source}:{first + 1}", text="Second.", source=source, line=first + 1)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_text_lines_are_records_and_blank_ones_are_not(packed, read, compression):
    found = read("x.txt" + compression, packed("Één.\n\n  \t\nTwo\n\nlast".encode(), compression))
    assert [(record.text, record.line) for record in found] == [("Één.", 1), ("Two", 4), ("last", 6)]
    assert [record.id for record in found] == [f"x.txt{compression}:{line}" for line in (1, 4, 6)]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.txt", b"One.\r\nTwo.\r\n"),
        ("x.jsonl", b'{"text": "One."}\r\n{"text": "Two."}\r\n'),
        ("x.csv", b"text\r\nOne.\r\nTwo.\r\n"),
    ],
)
def test_a_byte_order_mark_and_crlf_are_accepted(read, name, data):
    assert [record.text for record in read(name, b"\xef\xbb\xbf" + data)] == ["One.", "Two."]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("x.txt", b"\xffbad", "byte 1 of the line is not UTF-8: save it as UTF-8"),
        ("x.txt", b"no\0pe", "line holds a NUL at character 3: save it as UTF-8"),
        ("x.jsonl", b'{"text": "\xe9t\xe9"}', "byte 11 of the line is not UTF-8: save it as UTF-8"),
        ("x.jsonl", b'{"text": "a\\ud800"}', "text is no Unicode text at character 2: save it as UTF-8"),
        ("x.jsonl", b'{"text": "a\\u0000"}', "text holds a NUL at character 2: save it as UTF-8"),
        ("x.jsonl", b'{"text": "a", "id": "\\udfff"}', "id is no Unicode text at character 1: save it as UTF-8"),
        ("x.csv", b"bad\xff,1", "text is no Unicode text at character 4: save it as UTF-8"),
        ("x.csv", b"bad\0,1", "text holds a NUL at character 4: save it as UTF-8"),
    ],
)
def test_a_broken_encoding_fails_its_line_only(read, name, line, message):
    good = {"x.txt": (b"", b"Good."), "x.jsonl": (b"", b'{"text": "Good."}'), "x.csv": (b"text,seed\n", b"Good.,1")}
    header, row = good[name]
    before, bad, after = read(name, header + row + b"\n" + line + b"\n" + row + b"\n")
    assert before.text == after.text == "Good."
    where = f"{name}:{3 if header else 2}"
    assert bad == FailedRecord(id=where, source=where, stage="read", error="BadEncoding", message=message)


def test_a_language_may_have_its_country(read):
    lines = [json.dumps({"text": "a", "language": tag}) for tag in ("pt", "pt-BR", "PT_br", "zh-Hans-CN")]
    assert [record.language for record in read("x.jsonl", "\n".join(lines).encode())] == ["pt", "pt", "pt", "zh"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_fails_by_line(read, encoding):
    found = read("x.txt", "One.\nTwo.\n".encode(encoding))
    assert len(found) >= 2
    assert {record.error for record in found} == {"BadEncoding"}


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('{"text": "a"', "BadJson", "no JSON at column 13: Expecting ',' delimiter"),
        ("[1, 2]", "BadJson", 'line is a list, must be an object like {"text": "..."}'),
        ('"text"', "BadJson", "line is 'text', must be an object like {\"text\": \"...\"}"),
        ('{"text": "a", "x": NaN}', "BadJson", "no JSON that can be read: NaN is no JSON"),
        ('{"id": "a"}', "BadField", "text is missing: every record needs one"),
        ('{"text": null}', "BadField", "text is missing: every record needs one"),
        ('{"text": 5}', "BadField", "text is 5, must be a string"),
        ('{"text": ["a"]}', "BadField", "text is a list, must be a string"),
        ('{"text": "a", "id": 1.5}', "BadField", "id is 1.5, must be a string"),
        ('{"text": "a", "id": true}', "BadField", "id is True, must be a string"),
        ('{"text": "a", "voice": ""}', "BadField", "voice is empty: leave it out or name one"),
        ('{"text": "a", "voice": 7}', "BadField", "voice is 7, must be a string"),
        ('{"text": "a", "language": "english"}', "BadField", f"language is 'english', {ONE_OF}"),
        ('{"text": "a", "language": "nl-BE"}', "BadField", f"language is 'nl-BE', {ONE_OF}"),
        ('{"text": "a", "seed": -1}', "BadField", f"seed is -1, {SEED}"),
        ('{"text": "a", "seed": 4294967296}', "BadField", f"seed is 4294967296, {SEED}"),
        ('{"text": "a", "seed": 1.0}', "BadField", f"seed is 1.0, {SEED}"),
        ('{"text": "a", "index": "2"}', "BadField", "index is '2', must be a whole number from 0 to 2147483647"),
        ('{"text": "a", "text": "b"}', "DuplicateKey", "key 'text' occurs twice: keep one"),
    ],
)  # fmt: skip
def test_a_bad_json_line_fails_and_the_others_run(read, line, error, message):
    before, bad, after = read("x.jsonl", f'{{"text": "a"}}\n{line}\n{{"text": "b"}}'.encode())
    assert (before.text, after.text) == ("a", "b")
    assert (bad.source, bad.stage, bad.error, bad.message) == ("x.jsonl:2", "read", error, message)


@pytest.mark.parametrize("line", ["[" * 200_000, '{"a":' * 100_000, '{"text": ' + "9" * 5000 + "}"])
def test_json_that_is_built_to_hurt_fails_by_line(read, line):
    bad, good = read("x.jsonl", f'{line}\n{{"text": "b"}}'.encode())
    assert (bad.error, good.text) == ("BadJson", "b")
    assert len(bad.message) < 200


@pytest.mark.parametrize("text", ["", " \t", "?!", "...", "🎉 🎊", "\u0007\u001b", "\u200b\u200d\ufeff", "—", "👩‍👩‍👧"])
def test_nothing_to_speak_fails_as_empty_text(read, text):
    bad, good = read("x.jsonl", jsonl({"id": "quiet", "text": text}, {"text": "[laughs] ♪"}))
    assert (bad.id, bad.stage, bad.error) == ("quiet", "text", "EmptyText")
    assert bad.message.endswith("has nothing to speak: no letter, digit or ♪")
    assert good.text == "[laughs] ♪"


@pytest.mark.parametrize(
    "record_id",
    ["../../x", "/abs", "", "x" * 300, "a\nb", "é", "e\u0301", "A", "a", "%2e%2e", "\x01", "x" * ID_LIMIT_BYTES, " "],
)
def test_ids_are_kept_exactly(read, record_id):
    (from_json,) = read("x.jsonl", jsonl({"id": record_id, "text": "a"}))
    (from_parquet,) = read("x.parquet", parquet(id=[record_id], text=["a"]))
    assert from_json.id == from_parquet.id == record_id


def test_an_id_over_the_limit_fails_under_the_name_of_its_line(read):
    (bad,) = read("x.jsonl", jsonl({"id": "x" * (ID_LIMIT_BYTES + 1), "text": "a"}))
    assert bad.id == bad.source == "x.jsonl:1"
    assert bad.message.endswith(f"is over {ID_LIMIT_BYTES} bytes: shorten it")
    assert len(bad.message) < 120


def test_whole_numbers_serve_as_ids(read):
    assert [record.id for record in read("x.jsonl", jsonl({"id": 17, "text": "a"}))] == ["17"]
    assert [record.id for record in read("x.parquet", parquet(id=[17], text=["a"]))] == ["17"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_line_of_10_mb_fails_by_its_number_in_bounded_memory(packed, shard, compression):
    found = shard("x.txt" + compression, packed(b"One.\n" + b"x" * 10_000_000 + b"\nThree.\n", compression))
    tracemalloc.start()
    first, bad, third = read_shard(found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first.text, third.text, third.line) == ("One.", "Three.", 3)
    assert (bad.source, bad.error) == (f"x.txt{compression}:2", "LineTooLong")
    assert bad.message == "line is over 1048576 bytes: split it"
    assert peak < 6e6


def test_the_longest_line_is_accepted_and_one_byte_more_is_not(read):
    good, bad = read("x.txt", b"x" * LINE_LIMIT_BYTES + b"\r\n" + b"x" * (LINE_LIMIT_BYTES + 1))
    assert len(good.text) == LINE_LIMIT_BYTES
    assert bad.error == "LineTooLong"


@pytest.mark.parametrize("compression", [".gz", ".zst"])
def test_memory_does_not_grow_with_the_shard(packed, shard, compression):
    found = shard(
        "x.jsonl" + compression, packed(b'{"text": "The same line again and again."}\n' * 60_000, compression)
    )
    assert found.size_bytes < 100_000  # inflates to 2.6 MB
    tracemalloc.start()
    count = sum(1 for _ in read_shard(found))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 60_000
    assert peak < 2e6


@pytest.mark.parametrize("name", ["x.txt.gz", "x.txt.zst", "x.parquet", "x.parquet.gz"])
def test_a_truncated_file_is_named_and_never_used(packed, shard, name):
    plain = parquet(text=[f"Line {i}." for i in range(5000)]) if "parquet" in name else b"A line.\n" * 5000
    data = packed(plain, name[name.rindex(".") :])
    for kept in (1, len(data) // 2, len(data) - 1):
        found = shard(name, data[:kept])
        with pytest.raises(SourceError, match=name) as refused:
            list(read_shard(found))
        assert "\n" not in str(refused.value)


def test_a_flipped_byte_in_a_parquet_page_or_a_gz_is_noticed(shard):
    data = bytearray(parquet(text=[f"Line {i}." for i in range(1000)]))
    data[len(data) // 4] ^= 1
    with pytest.raises(SourceError, match=r"^x\.parquet: no whole Parquet file: .*CRC"):
        list(read_shard(shard("x.parquet", bytes(data))))
    stored = bytearray(gzip.compress(b"A line.\n" * 50, compresslevel=0))
    stored[30] ^= 1
    with pytest.raises(SourceError, match=r"x\.txt\.gz' cannot be read: CRC check failed"):
        list(read_shard(shard("x.txt.gz", bytes(stored))))


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.txt.gz"])
def test_an_empty_file_has_no_records(read, name):
    assert read(name, b"") == []


def test_csv_texts_may_hold_commas_quotes_and_lines(read):
    (record,) = read("x.csv", b'id,text\n1,"Two ""lines"",\nas they say."\n')
    assert record.text == 'Two "lines",\nas they say.'


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ('2,"never closed', "the row's quotes do not close as they should: "),
        ('2,"a"b', "the row's quotes do not close as they should: "),
        ("2,one,too many", "the row has 3 cells, the header 2: quote commas and quotes"),
        ("2", "the row has 1 cells, the header 2: quote commas and quotes"),
    ],
)
def test_a_stray_quote_or_comma_costs_one_csv_record(read, stray, message):
    rows = [f'{i},"Line, {i}."' for i in range(3, 9)]
    first, bad, *others = read("x.csv", "\n".join(["id,text", "1,One.", stray, *rows]).encode())
    assert first.text == "One."
    assert (bad.source, bad.error) == ("x.csv:3", "BadCsv")
    assert bad.message.startswith(message)
    assert [(record.id, record.text, record.line) for record in others] == [
        (str(i), f"Line, {i}.", i + 1) for i in range(3, 9)
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id;text", "x.csv: the header ['id;text'] has no column 'text': name it, use commas"),
        ("text,id,text", "x.csv: the header has the column 'text' twice: keep one"),
    ],
)
def test_a_csv_header_must_name_its_columns_once(read, header, message):
    with pytest.raises(SourceError) as refused:
        read("x.csv", f"{header}\na,b,c\n".encode())
    assert str(refused.value) == message


def test_csv_numbers_are_checked_as_others_are(read):
    good, bad = read("x.csv", b"text,seed\na,007\nb,1e3\n")
    assert good.seed == 7
    assert bad.message == "seed is '1e3', must be a whole number from 0 to 4294967295"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": ["a"]}, "x.parquet: columns ['words'] have no 'text': name it"),
        ({"text": [5]}, "x.parquet: column 'text' is int64, must be string"),
        ({"text": [b"a"]}, "x.parquet: column 'text' is binary, must be string"),
        ({"text": ["a"], "seed": [1.5]}, "x.parquet: column 'seed' is double, must be integer"),
        ({"text": ["a"], "id": [1.5]}, "x.parquet: column 'id' is double, must be string or integer"),
    ],
)
def test_parquet_columns_have_their_types(read, columns, message):
    with pytest.raises(SourceError) as refused:
        read("x.parquet", parquet(**columns))
    assert str(refused.value) == message


def test_parquet_rows_fail_one_by_one(read):
    not_utf8 = pa.array([b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    texts = pa.chunked_array(
        [pa.array(["Good.", None, "", "x" * (LINE_LIMIT_BYTES + 1)]), not_utf8, pa.array(["Last."])]
    )
    found = read("x.parquet", parquet(text=texts, seed=pa.array([0] * 5 + [1], pa.uint64())))
    assert [getattr(record, "error", record.id) for record in found] == [
        "x.parquet:1", "BadField", "EmptyText", "TextTooLong", "BadEncoding", "x.parquet:6",
    ]  # fmt: skip


def test_parquet_strings_may_be_large_or_in_dictionaries(read):
    data = parquet(text=pa.array(["a", "b"], pa.large_string()), voice=pa.array(["v", "v"]).dictionary_encode())
    assert [(record.text, record.voice) for record in read("x.parquet", data)] == [("a", "v"), ("b", "v")]


def test_a_parquet_dictionary_that_repeats_a_long_text_is_not_laid_out_whole(shard):
    text = "a" * 1_000_000
    data = parquet(text=pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), [text]))
    assert len(data) < 100_000  # 3 GB of text
    before = pa.default_memory_pool().max_memory()
    records = read_shard(shard("x.parquet", data))
    assert len(next(records).text) == len(next(records).text) == len(text)
    records.close()
    assert pa.default_memory_pool().max_memory() - before < 150e6
