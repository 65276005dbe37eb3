import gzip

import pyarrow as pa
import pytest

from pipeline.sources import list_shards, read_shard
from pipeline.sources.audio import AUDIO_FORMATS
from pipeline.sources.shards import RECORD_FORMATS


def _packed(data: bytes, compression: str) -> bytes:
    """The bytes plain, as .gz or as .zst."""
    if compression == ".gz":
        return gzip.compress(data, mtime=0)
    if compression == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return sink.getvalue().to_pybytes()
    return data


@pytest.fixture
def packed():
    """Compresses bytes as a file's extension says."""
    return _packed


@pytest.fixture
def shard(tmp_path):
    """Writes one input file and lists it."""

    def write(name: str, data: bytes):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        (found,) = list_shards(str(path), (*RECORD_FORMATS, *AUDIO_FORMATS))
        return found

    return write


@pytest.fixture
def read(shard):
    """Writes one input file and reads its records."""
    return lambda name, data: list(read_shard(shard(name, data)))
