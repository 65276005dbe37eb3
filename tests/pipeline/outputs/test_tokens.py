"""Token Parquet: the columns of the contract, round trips, repeating bytes, checksums."""

import io

import numpy as np
import pyarrow as pa
import pytest

from pipeline.outputs.tokens import (
    SCHEMA,
    TokenRow,
    by_record,
    open_parquet,
    read_tokens,
    record_text,
    write_tokens,
)

CONTRACT = (
    "id record_id document chapter index text language voice voice_hash seed attempt semantic coarse fine num_frames "
    "num_samples sample_rate duration_s stop_reason audio_path audio_sha256 peak_dbfs rms_dbfs model model_sha256 "
    "dtype slots sampling source source_start source_end"
)


def row(n: int = 0, **values) -> TokenRow:
    given = {
        "id": f"r{n}#0",
        "record_id": f"r{n}",
        "text": "hello",
        "semantic": np.arange(5, dtype=np.int32) + 9990,
        "coarse": np.arange(8, dtype=np.int32).reshape(2, 4),
        "fine": np.arange(32, dtype=np.int32).reshape(8, 4),
    }
    return TokenRow(**given | values)


def rows_of(data: bytes, columns=None) -> list[TokenRow]:
    return list(read_tokens(io.BytesIO(data), columns))


def test_the_columns_are_those_of_the_contract_in_its_order():
    assert SCHEMA.names == CONTRACT.split()
    assert SCHEMA.field("semantic").type == pa.list_(pa.int16())
    assert SCHEMA.field("fine").type == pa.list_(pa.list_(pa.int16()))


def test_rows_come_back():
    (back,) = rows_of(write_tokens([row(seed=2**32 - 1, duration_s=1.5)]))
    assert (back.id, back.record_id, back.text, back.seed, back.duration_s) == ("r0#0", "r0", "hello", 2**32 - 1, 1.5)
    for name in ("semantic", "coarse", "fine"):
        np.testing.assert_array_equal(getattr(back, name), getattr(row(), name))
        assert getattr(back, name).dtype == np.int32


def test_stages_that_did_not_run_are_null():
    (back,) = rows_of(write_tokens([row(coarse=None, fine=None)]))
    assert back.coarse is None
    assert back.fine is None
    assert back.audio_path is None


def test_no_rows_is_a_file_too():
    assert rows_of(write_tokens([])) == []


def test_some_columns_only():
    (back,) = rows_of(write_tokens([row()]), ["text"])
    assert (back.id, back.text, back.semantic) == ("r0#0", "hello", None)


def test_bytes_repeat():
    assert write_tokens([row(0), row(1)]) == write_tokens([row(0), row(1)])


def test_tokens_beyond_int16_are_refused():
    with pytest.raises(ValueError, match="row 'r0#0' has semantic tokens from 0 to 40000: int16 cannot hold them"):
        write_tokens([row(semantic=np.array([0, 40000]))])


def test_a_flipped_bit_in_a_page_is_found():
    rows = [row(n, semantic=np.random.default_rng(n).integers(0, 10000, 400)) for n in range(20)]
    data = bytearray(write_tokens(rows))
    column = open_parquet(io.BytesIO(bytes(data))).metadata.row_group(0).column(SCHEMA.names.index("semantic"))
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    with pytest.raises(OSError, match="CRC"):
        rows_of(bytes(data))


def test_rows_of_a_record_are_taken_together():
    rows = [row(0, id="a"), row(0, id="b"), row(1), row(2)]
    assert [[r.id for r in group] for group in by_record(rows)] == [["a", "b"], ["r1#0"], ["r2#0"]]


def test_the_text_of_a_record_is_put_together():
    parts = [("One.", 0, 4), ("Two.", 5, 9), ("三。", 9, 11)]
    rows = [row(0, text=text, source_start=start, source_end=end) for text, start, end in parts]
    assert record_text(rows) == "One. Two.三。"
