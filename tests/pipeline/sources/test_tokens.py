import hashlib
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.commit import CommittedFile
from pipeline.manifest import Manifest, ManifestShard, dump_manifest
from pipeline.outputs.tokens import TokenRow, write_tokens
from pipeline.records import FailedRecord
from pipeline.sources import SourceError, list_shards, tokens
from pipeline.sources.tokens import TokenLimits, list_token_shards, read_tokens

LIMITS = TokenLimits(
    semantic_vocab_size=100,
    codebook_size=50,
    n_coarse_codebooks=2,
    n_fine_codebooks=8,
    max_semantic_tokens=20,
    max_frames=30,
)
GOOD = {"semantic": [1, 99], "coarse": [[0, 49]] * 2, "fine": [[0, 49]] * 8}


def row(record_id, part=0, **values):
    arrays = {name: np.array(GOOD[name], np.int32) for name in GOOD}
    given = {"text": f"Part {part}.", "source_start": part * 10, "source_end": part * 10 + 7, "seed": 5} | arrays
    return TokenRow(id=f"{record_id}/{part}", record_id=record_id, **(given | values))


def table(**columns) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_rows_come_back_as_records_with_their_chunks(shard):
    rows = [row("a", 0, voice="v", voice_hash="h", model_sha256="m"), row("a", 1), row("b", language="de", index=4)]
    first, second = read_tokens(shard("t.parquet", write_tokens(rows)), "fine", LIMITS)
    assert (first.record.id, first.record.text, first.record.seed, first.record.voice) == (
        "a",
        "Part 0. Part 1.",
        5,
        "v",
    )
    assert (second.record.language, second.record.index) == ("de", 4)
    assert [chunk.id for chunk in first.chunks] == ["a/0", "a/1"]
    assert (first.chunks[0].voice_hash, first.chunks[0].model_sha256) == ("h", "m")
    for name, value in GOOD.items():
        found = getattr(first.chunks[1], name)
        assert found.dtype == np.int32
        assert found.tolist() == value


def test_only_the_stages_up_to_the_start_are_read(shard):
    rows = [row("a", fine=None)]
    (stored,) = read_tokens(shard("t.parquet", write_tokens(rows)), "coarse", LIMITS)
    assert stored.chunks[0].semantic is not None
    assert stored.chunks[0].fine is None
    (stored,) = read_tokens(shard("t.parquet", write_tokens([row("a")])), "semantic", LIMITS)
    assert stored.chunks[0].coarse is None


BAD = [
    ("semantic", [1, 100], "semantic has the token 100, must be 0 to 99"),
    ("semantic", [-1, 2], "semantic has the token -1, must be 0 to 99"),
    ("semantic", [2**40], "semantic has the token 1099511627776, must be 0 to 99"),
    ("semantic", [1, None], "semantic has a null among its tokens"),
    ("semantic", [], "semantic has 0 tokens, must have 1 to 20"),
    ("semantic", [1] * 21, "semantic has 21 tokens, must have 1 to 20"),
    ("semantic", None, "semantic tokens are missing: start from another stage"),
    ("coarse", [[1, 2]] * 3, "coarse has 3 codebooks, must have 2"),
    ("coarse", [[1, 2], [1]], "coarse is ragged: codebooks of 1 and 2 frames"),
    ("coarse", [[1, 2], None], "coarse has a null codebook"),
    ("coarse", [[1, 50], [1, 2]], "coarse has the token 50, must be 0 to 49"),
    ("coarse", [[], []], "coarse has 0 tokens, must have 1 to 30"),
    ("coarse", [], "coarse has 0 codebooks, must have 2"),
    ("fine", [[1]] * 7, "fine has 7 codebooks, must have 8"),
    ("fine", [[1]] * 7 + [[-3]], "fine has the token -3, must be 0 to 49"),
    ("fine", [[1] * 31] * 8, "fine has 31 tokens, must have 1 to 30"),
]


@pytest.mark.parametrize(("stage", "value", "message"), BAD)
def test_bad_tokens_fail_their_record_with_its_stage(shard, stage, value, message):
    kind = pa.list_(pa.int64()) if stage == "semantic" else pa.list_(pa.list_(pa.int64()))
    good = GOOD[stage]
    data = table(
        id=["1", "2", "3", "4"], record_id=["a", "b", "b", "c"], **{stage: pa.array([good, good, value, good], kind)}
    )
    before, bad, after = read_tokens(shard("t.parquet", data), stage, LIMITS)
    assert (before.record.id, after.record.id) == ("a", "c")
    assert bad == FailedRecord(id="b", source="t.parquet:3", stage=stage, error="BadTokens", message=message)


def test_tokens_of_another_model_fail_their_record_where_one_is_wanted(shard):
    sums = {"a": "m" * 64, "b": "n" * 64, "c": None}
    source = shard("t.parquet", write_tokens([row(name, model_sha256=sums[name]) for name in sums]))
    assert [one.record.id for one in read_tokens(source, "fine", LIMITS)] == ["a", "b", "c"]
    a, b, c = read_tokens(source, "fine", replace(LIMITS, model_sha256="m" * 64))
    assert (a.record.id, c.record.id) == ("a", "c")
    assert (b.id, b.source, b.stage, b.error) == ("b", "t.parquet:2", "read", "OtherModel")
    assert b.message == (
        "tokens are of the model 'nnnnnnnnnnnn', the checkpoint is 'mmmmmmmmmmmm': start with --force to use them all "
        "the same"
    )


def test_unsigned_64_bit_tokens_do_not_wrap(shard):
    data = table(semantic=pa.array([[2**64 - 1]], pa.list_(pa.uint64())))
    (bad,) = read_tokens(shard("t.parquet", data), "semantic", LIMITS)
    assert bad.message == "semantic has the token 18446744073709551615, must be 0 to 99"


def test_a_plain_file_needs_nothing_but_tokens(shard):
    data = table(semantic=pa.array([[1], [2]], pa.list_(pa.int16())))
    assert [stored.record.id for stored in read_tokens(shard("t.parquet", data), "semantic", LIMITS)] == [
        "t.parquet:1",
        "t.parquet:2",
    ]


def test_chunks_out_of_order_fail(shard):
    (bad,) = read_tokens(shard("t.parquet", write_tokens([row("a", 1), row("a", 0)])), "fine", LIMITS)
    assert bad.message == "chunks are not in the order of the text: sort the rows by source_start"


def test_a_record_of_too_many_chunks_fails(shard, monkeypatch):
    monkeypatch.setattr(tokens, "CHUNKS_LIMIT", 3)
    rows = [row("a", part) for part in range(5)] + [row("b")]
    bad, good = read_tokens(shard("t.parquet", write_tokens(rows)), "fine", LIMITS)
    assert (bad.id, bad.source, bad.message) == ("a", "t.parquet:4", "record has over 3 chunks: split it")
    assert good.record.id == "b"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "t.parquet: columns ['text'] have no 'semantic': start from another stage"),
        ({"semantic": [[1.5]]}, "t.parquet: column 'semantic' is list<element: double>, must be list of integer"),
        ({"semantic": [[1]], "seed": ["x"]}, "t.parquet: column 'seed' is string, must be integer"),
    ],
)
def test_wrong_columns_concern_the_file(shard, columns, message):
    with pytest.raises(SourceError) as refused:
        list(read_tokens(shard("t.parquet", table(**columns)), "semantic", LIMITS))
    assert str(refused.value) == message


def test_a_flipped_byte_is_found_by_its_page_checksum(shard):
    data = bytearray(write_tokens([row("a", part) for part in range(50)]))
    data[60] ^= 1
    with pytest.raises(SourceError, match=r"^t\.parquet: no whole Parquet file: .*CRC"):
        list(read_tokens(shard("t.parquet", bytes(data)), "fine", LIMITS))


NUMBERS = st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 99)), max_size=25)


@given(values=st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), NUMBERS), max_size=9)), max_size=4))
def test_any_codes_are_a_record_or_a_failure_each(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("codes") / "t.parquet"
    path.write_bytes(table(coarse=pa.array(values, pa.list_(pa.list_(pa.int64())))))
    found = list(read_tokens(list_shards(str(path))[0], "coarse", LIMITS))
    assert len(found) == len(values)


def test_neither_a_run_nor_parquet(tmp_path):
    with pytest.raises(SourceError, match=r"has no _MANIFEST\.json: name a finished run or Parquet files$"):
        list_token_shards(str(tmp_path))


def test_parquet_files_are_listed_by_glob(tmp_path):
    (tmp_path / "t.parquet").write_bytes(write_tokens([row("a")]))
    assert [found.name for found in list_token_shards(f"{tmp_path}/*.parquet")] == ["t.parquet"]


def test_a_run_is_read_by_its_manifest_and_nothing_else(tmp_path):
    data = write_tokens([row("a")])
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "named.parquet").write_bytes(data)
    (tmp_path / "tokens" / "stray.parquet").write_bytes(data)
    file = CommittedFile(
        kind="tokens", path="tokens/named.parquet", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), rows=1
    )
    counts = {"done": 1, "failed": 0, "chunks": 1, "samples": 1, "bytes": len(data)}
    unit = ManifestShard(unit="0000/000000-00000", sha256="", audio_files=0, files=(file,), **counts)
    manifest = Manifest(generation=0, fingerprint="", records=1, removed=0, sample_rate=24000, shards=(unit,), **counts)
    (tmp_path / "_MANIFEST.json").write_bytes(dump_manifest(manifest))
    (found,) = list_token_shards(str(tmp_path))
    assert found.name == "tokens/named.parquet"
    assert [stored.record.id for stored in read_tokens(found, "fine", LIMITS)] == ["a"]
    (tmp_path / "tokens" / "named.parquet").write_bytes(data[:-1] + b"?")
    with pytest.raises(SourceError, match=r"named\.parquet' was changed or damaged since the run was planned"):
        list(read_tokens(found, "fine", LIMITS))
