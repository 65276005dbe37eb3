"""The layout that Hugging Face `datasets` reads."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.outputs.audio_parquet import AudioRow, read_audio, write_audio

ROWS = [AudioRow(id=f"r{n}", text="hello", data=b"%d" % n, path=f"r{n}.flac", duration_s=1.5) for n in range(40)]


def test_rows_come_back_and_bytes_repeat():
    data = write_audio(ROWS, sample_rate=24000)
    assert list(read_audio(io.BytesIO(data))) == ROWS
    assert write_audio(ROWS, sample_rate=24000) == data


def test_the_feature_description_names_audio_at_its_rate():
    table = pq.read_table(io.BytesIO(write_audio(ROWS, sample_rate=24000)))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["audio"] == {"sampling_rate": 24000, "_type": "Audio"}
    assert list(features) == table.schema.names
    assert table.schema.field("audio").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
