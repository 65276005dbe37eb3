import os
import re
from dataclasses import replace

import pytest

from pipeline.sources import SourceError, list_shards, read_shard, shards
from pipeline.sources.shards import check_unchanged


def make(folder, *names, data=b"One line.\n"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(patterns):
    return [shard.name for shard in list_shards(patterns)]


def test_a_glob_lists_its_files_sorted_and_without_what_tools_leave_beside_them(tmp_path):
    make(tmp_path, "b.txt", "a.jsonl.gz", "c.csv.zst", "_SUCCESS", ".b.txt.crc", "below/d.txt")
    assert names(f"{tmp_path}/*") == ["a.jsonl.gz", "b.txt", "c.csv.zst"]
    assert names(f"{tmp_path}/**/*.txt") == ["b.txt", "below/d.txt"]


def test_a_shard_that_several_patterns_name_is_listed_once(tmp_path):
    make(tmp_path, "a.txt", "b.txt")
    assert names([f"{tmp_path}/b.txt", f"{tmp_path}/*.txt", f"file://{tmp_path}/a.txt"]) == ["a.txt", "b.txt"]


def test_names_are_the_same_wherever_the_input_lies_and_grows(tmp_path):
    make(tmp_path / "here", "en/part.txt", "de/part.txt")
    make(tmp_path / "there" / "deeper", "en/part.txt", "de/part.txt", "fr/part.txt")
    assert names(f"{tmp_path}/here/*/part.txt") == ["de/part.txt", "en/part.txt"]
    assert names(f"{tmp_path}/there/deeper/*/part.txt") == ["de/part.txt", "en/part.txt", "fr/part.txt"]


def test_equal_base_names_in_two_folders_make_different_ids(tmp_path):
    make(tmp_path, "en/part.txt", "de/part.txt")
    listed = list_shards([f"{tmp_path}/en/part.txt", f"{tmp_path}/de/part.txt"])
    assert [record.id for shard in listed for record in read_shard(shard)] == ["de/part.txt:1", "en/part.txt:1"]


def test_a_file_whose_name_reads_like_a_glob(tmp_path):
    make(tmp_path, "take[1].txt", "take1.txt")
    assert names(f"{tmp_path}/take[1].txt") == ["take[1].txt"]


def test_relative_paths_do_not_depend_on_the_working_directory(tmp_path, monkeypatch):
    make(tmp_path, "in/a.txt")
    monkeypatch.chdir(tmp_path)
    from_here = list_shards("in/*.txt")
    monkeypatch.chdir(tmp_path / "in")
    assert list_shards("*.txt") == from_here == list_shards(f"{tmp_path}/in/a.txt")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{}/*.txt", "input '{}/*.txt' matches no file: check the path and the glob"),
        ("{}/none.txt", "input '{}/none.txt' is no file: check the path"),
        ("{}/folder", "input '{}/folder' is a folder: write {}/folder/* for its files"),
        (
            "{}/a.doc",
            "input file '{}/a.doc' has an unknown extension: known are .txt, .jsonl, .csv, .parquet, "
            "each also with .gz or .zst",
        ),
    ],
)
def test_what_cannot_be_input_is_refused_in_one_line(tmp_path, pattern, message):
    make(tmp_path, "folder/x.doc", "a.doc")
    with pytest.raises(SourceError) as refused:
        list_shards(pattern.format(tmp_path))
    assert str(refused.value) == message.replace("{}", str(tmp_path))
    assert refused.value.exit_code == 2


def test_no_pattern_at_all():
    with pytest.raises(SourceError, match=r"^input names no file: give a path or a glob$"):
        list_shards([])


def test_an_unknown_scheme_is_refused():
    with pytest.raises(
        shards.UsageError, match=r"^'nowhere://x/\*\.txt' cannot be opened: Protocol not known: nowhere"
    ):
        list_shards("nowhere://x/*.txt")


def test_identity_follows_the_content_and_not_the_clock(tmp_path):
    make(tmp_path, "a.txt", "copy/a.txt")
    (before,) = list_shards(f"{tmp_path}/a.txt")
    os.utime(tmp_path / "a.txt", ns=(1, 1))
    (touched,) = list_shards(f"{tmp_path}/a.txt")
    (copied,) = list_shards(f"{tmp_path}/copy/a.txt")
    times = os.stat(tmp_path / "a.txt")
    make(tmp_path, "a.txt", data=b"Two lines.")
    os.utime(tmp_path / "a.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    (changed,) = list_shards(f"{tmp_path}/a.txt")
    assert before.identity == touched.identity == copied.identity != changed.identity
    assert before.size_bytes == changed.size_bytes == 10


def test_identity_of_a_large_file_is_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "HASHED_LIMIT_BYTES", 5)
    make(tmp_path, "a.txt")
    os.utime(tmp_path / "a.txt", ns=(7, 7))
    (shard,) = list_shards(f"{tmp_path}/a.txt")
    assert shard.identity == "mtime:7:10"
    assert len(list(read_shard(shard))) == 1
    os.utime(tmp_path / "a.txt", ns=(8, 8))
    with pytest.raises(SourceError, match="was changed or damaged since the run was planned: start the run again"):
        list(read_shard(shard))


@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_a_shard_changed_after_the_plan_is_not_used(tmp_path, name):
    make(tmp_path, name)
    (shard,) = list_shards(f"{tmp_path}/{name}")
    make(tmp_path, name, data=b"Any line.\n")
    message = re.escape(f"input file '{tmp_path}/{name}' was changed or damaged since the run was planned")
    with pytest.raises(SourceError, match=message):
        list(read_shard(shard))
    with pytest.raises(SourceError, match=message):
        check_unchanged(shard)


def test_a_shard_that_is_gone(tmp_path):
    make(tmp_path, "a.txt")
    (shard,) = list_shards(f"{tmp_path}/a.txt")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(SourceError, match=r"a\.txt' cannot be read: .*No such file"):
        list(read_shard(shard))


def test_other_file_systems_are_read_through_fsspec():
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/in/a.txt", b"One.\nTwo.\n")
    (shard,) = list_shards("memory://in/*.txt")
    assert [record.id for record in read_shard(shard)] == ["a.txt:1", "a.txt:2"]
    memory.pipe_file("/in/a.txt", b"One.\nTwo!\n")
    with pytest.raises(SourceError, match="was changed or damaged"):
        list(read_shard(shard))
    memory.rm("/in", recursive=True)


def test_a_checksum_of_cloud_storage_is_compared(tmp_path):
    make(tmp_path, "a.txt", data=b"123456789")
    (shard,) = list_shards(f"{tmp_path}/a.txt")
    known = replace(shard, identity="crc32c:4waSgw==:9")  # the published check value of CRC-32C
    assert [record.text for record in read_shard(known)] == ["123456789"]
    with pytest.raises(SourceError, match="was changed or damaged"):
        list(read_shard(replace(shard, identity="crc32c:AAAAAA==:9")))


def test_a_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.txt")).write_bytes(b"x")
    with pytest.raises(SourceError, match="has a name that is not UTF-8: rename it"):
        list_shards(f"{tmp_path}/*")
