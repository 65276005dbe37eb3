"""The demo job must end with every record done."""

from importlib.resources import files

from pipeline.chunking import estimate_seconds
from pipeline.records import Record
from pipeline.sources import list_shards, read_shard


def test_the_demo_texts_are_all_good_short_records():
    shards = list_shards([str(files("configs") / "demo" / name) for name in ("*.txt", "*.jsonl")])
    records = [record for shard in shards for record in read_shard(shard)]
    assert [shard.name for shard in shards] == ["letters.txt", "notes.jsonl"]
    assert len(records) == len({record.id for record in records}) == 24
    for record in records:
        assert isinstance(record, Record)
        assert 1 < estimate_seconds(record.text) < 8
    assert {record.language for record in records} == {None, "en", "pt", "it", "pl", "tr"}
