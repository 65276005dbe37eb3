"""Input shards in a bucket: listed, identified by content, read as a stream and compared with their checksum."""

import gzip
import io
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from pipeline.sources import SourceError, list_shards, read_shard
from tests.gcs.server import BUCKET


@pytest.fixture
def upload(gcs):
    """Puts an object below a fresh prefix; its URI."""
    client = storage.Client(project="test", credentials=AnonymousCredentials())
    prefix = uuid.uuid4().hex

    def put(name: str, data: bytes) -> str:
        client.bucket(BUCKET).blob(f"{prefix}/{name}").upload_from_string(data)
        return f"gs://{BUCKET}/{prefix}/{name}"

    yield put
    client.close()


def test_every_format_is_read_from_a_bucket(upload):
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["In Parquet."]}), sink)
    upload("in/c.parquet", sink.getvalue())
    upload("in/b.jsonl.gz", gzip.compress(b'{"text": "In JSON."}\n'))
    upload("in/below/d.txt", b"Not asked for.")
    folder = upload("in/a.txt", b"In text.\n").removesuffix("a.txt")
    shards = list_shards(folder + "*")
    assert [shard.name for shard in shards] == ["a.txt", "b.jsonl.gz", "c.parquet"]
    assert [(record.id, record.text) for shard in shards for record in read_shard(shard)] == [
        ("a.txt:1", "In text."),
        ("b.jsonl.gz:1", "In JSON."),
        ("c.parquet:1", "In Parquet."),
    ]


def test_an_object_larger_than_a_block_streams_whole(upload):
    uri = upload("a.txt", (b"One long line. " * 100 + b"\n") * 6_000)
    (shard,) = list_shards(uri)
    assert shard.size_bytes == 9_006_000
    assert sum(1 for _ in read_shard(shard)) == 6_000


def test_identity_is_the_content_and_a_changed_object_is_not_used(upload):
    uri = upload("a.txt", b"One.\nTwo.\n")
    (before,) = list_shards(uri)
    upload("a.txt", b"One.\nTwo.\n")
    assert list_shards(uri) == (before,)
    upload("a.txt", b"One.\nTwo!\n")
    with pytest.raises(SourceError, match="was changed or damaged since the run was planned"):
        list(read_shard(before))


@pytest.mark.parametrize("rest", ["none*", "none.txt"])
def test_nothing_there_is_one_line(upload, rest):
    folder = upload("a.txt", b"One.").removesuffix("a.txt")
    with pytest.raises(SourceError, match=r"(matches no file|is no file): check the path"):
        list_shards(folder + rest)
