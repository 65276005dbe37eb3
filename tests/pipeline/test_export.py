"""Exports as their readers find them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from pipeline.errors import UsageError
from pipeline.export import FORMATS, Exported, export, huggingface, webdataset
from pipeline.manifest import load_manifest, publish, read_shard_commit
from pipeline.outputs.audio import decode
from pipeline.outputs.names import safe_name
from pipeline.outputs.unit_files import Layout
from pipeline.store import Corrupt, LocalStore, NotFound
from tests.pipeline.killing import tree
from tests.pipeline.small_run import FINGERPRINT, commit, failed, finished, small_run

TEXTS = {
    "a": "Hello there. How are you?",
    "A": "Hello there. How are you?",
    "../b é\n": "Ça va?",
    "d|e": "One | two. Three.",
}
LAYOUTS = [Layout(), Layout(where="parquet"), Layout(audio_format="wav"), Layout(audio_format="mp3", where="parquet")]


@pytest.fixture(params=LAYOUTS, ids=lambda layout: f"{layout.audio_format}-{layout.where}")
def store(request, tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "run")
    small_run(store, request.param)
    return store


@pytest.fixture
def there(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "there")


def joined(text: str) -> str:
    """What is left of a text whose sentences were cut at ". " and put together again."""
    return text.replace(". ", " ")


@pytest.mark.parametrize("export_format", FORMATS)
def test_every_format_takes_every_layout_and_repeats(store, there, tmp_path: Path, export_format: str):
    assert export(store, there, export_format) == Exported(4, load_manifest(store).audio_s)
    before = tree(tmp_path / "there")
    assert not any("\ne" in name or ".." in name for name in before)
    export(store, there, export_format)
    assert tree(tmp_path / "there") == before


def test_hugging_face(store, there):
    export(store, there, "hf")
    front = yaml.safe_load(there.read("README.md").decode().split("---")[1])
    (paths,) = [files["path"] for config in front["configs"] for files in config["data_files"]]
    table = pq.read_table(io.BytesIO(there.read(paths[0])))
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["audio"] == {"sampling_rate": 24000, "_type": "Audio"}
    rows = {row["id"]: row for row in table.to_pylist()}
    assert {name: row["text"] for name, row in rows.items()} == {name: joined(text) for name, text in TEXTS.items()}
    assert len(decode(rows["a"]["audio"]["bytes"])[0]) == pytest.approx(30000, abs=2500)
    assert rows["a"]["duration_s"] == 1.25
    assert rows["a"]["audio"]["path"].startswith(safe_name("a"))


def test_ljspeech(store, there):
    export(store, there, "ljspeech")
    lines = there.read("metadata.csv").decode().splitlines()
    columns = [line.split("|") for line in lines]
    assert {name: text for name, text, _ in columns} == {
        safe_name(name): " ".join(joined(text).replace("|", " ").split(" ")) for name, text in TEXTS.items()
    }
    for name, text, normalised in columns:
        assert text == normalised
        samples, rate = soundfile.read(io.BytesIO(there.read(f"wavs/{name}.wav")), dtype="int16")
        assert (rate, samples.ndim) == (24000, 1)


def test_nemo(store, there):
    export(store, there, "nemo")
    entries = [json.loads(line) for line in there.read("manifest.jsonl").decode().splitlines()]
    assert {entry["id"] for entry in entries} == set(TEXTS)
    for entry in entries:
        pcm, rate = decode(there.read(entry["audio_filepath"]))
        assert len(pcm) / rate == pytest.approx(entry["duration"], abs=0.1)
        assert entry["lang"] == "en"


def test_webdataset(store, there, monkeypatch):
    monkeypatch.setattr(webdataset, "_SHARD_RECORDS", 3)
    export(store, there, "webdataset")
    samples: dict[str, dict[str, bytes]] = {}
    for shard in ("shard-000000.tar", "shard-000001.tar"):
        with tarfile.open(fileobj=io.BytesIO(there.read(shard))) as tar:
            for member in tar:
                name, _, ending = member.name.partition(".")
                samples.setdefault(name, {})[ending] = tar.extractfile(member).read()
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
    facts = {name: json.loads(sample["json"]) for name, sample in samples.items()}
    assert {fact["id"]: fact["text"] for fact in facts.values()} == {name: joined(text) for name, text in TEXTS.items()}
    assert all(
        np.any(decode(next(data for end, data in sample.items() if end != "json"))[0]) for sample in samples.values()
    )


def test_large_runs_become_several_shards(store, there, monkeypatch):
    monkeypatch.setattr(huggingface, "_SHARD_BYTES", 1)
    export(store, there, "hf")
    assert len(list(there.list("data/"))) == 4


def test_audio_that_changed_is_not_handed_over(store, there):
    commit_record = read_shard_commit(store, load_manifest(store).shards[0])
    path = Path(store.uri) / next(file.path for file in commit_record.files if file.kind.startswith("audio"))
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Corrupt, match="the stored bytes changed"):
        export(store, there, "nemo")


def test_a_destination_with_something_else_is_left_as_it_is(tmp_path: Path, there):
    """Another format, the same run after it grew, or a user's own files: refused before a file is written."""
    store = LocalStore(tmp_path / "run")
    names = [shard.unit for shard in small_run(store).shards]
    export(store, there, "ljspeech")
    before = tree(tmp_path / "there")
    refused = "there holds something else already: choose another folder with -o"
    with pytest.raises(UsageError, match=refused):
        export(store, there, "nemo")
    commit(store, "0001/000000-00000", [finished("new")])
    publish(store, generation=1, fingerprint=FINGERPRINT, commits=[*names, "0001/000000-00000"], records=5)
    with pytest.raises(UsageError, match=refused):
        export(store, there, "ljspeech")
    assert tree(tmp_path / "there") == before

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("my own words")
    with pytest.raises(UsageError, match="mine holds something else already"):
        export(store, LocalStore(tmp_path / "mine"), "hf")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]
    (tmp_path / "mine" / "README.md").rename(tmp_path / "mine" / ".gitattributes")  # as in a new repository of the hub
    assert export(store, LocalStore(tmp_path / "mine"), "hf").records == 5


def test_a_stopped_export_is_ended_by_the_next(store, there, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(path, content):
        if path.endswith("manifest.jsonl"):
            raise Stopped
        return LocalStore.create(there, path, content)

    with monkeypatch.context() as patched:
        patched.setattr(there, "create", stop)
        with pytest.raises(Stopped):
            export(store, there, "nemo")
    assert there.size("manifest.jsonl") is None
    export(store, there, "nemo")
    assert len(there.read("manifest.jsonl").splitlines()) == 4


def test_a_run_of_failures_has_nothing_to_export(tmp_path: Path, there):
    store = LocalStore(tmp_path / "run")
    commit(store, "0000/000000-00000", [], [failed("b")])
    publish(store, generation=0, fingerprint=FINGERPRINT, commits=["0000/000000-00000"], records=1)
    with pytest.raises(UsageError, match="has no record that is done, 1 failed: there is nothing to export"):
        export(store, there, "hf")


def test_what_cannot_be_exported_says_so(tmp_path: Path, there):
    store = LocalStore(tmp_path / "tokens-only")
    with pytest.raises(NotFound, match="the run is not finished"):
        export(store, there, "hf")
    commit(store, "0000/000000-00000", [finished("a", audio=False)])
    publish(store, generation=0, fingerprint=FINGERPRINT, commits=["0000/000000-00000"], records=1)
    with pytest.raises(UsageError, match=r"holds no audio: run it with stages\.to: audio first"):
        export(store, there, "hf")
    with pytest.raises(UsageError, match="unknown format 'webdatset': did you mean 'webdataset'"):
        export(store, there, "webdatset")
    for inside in (store.uri, f"{store.uri}/audio", str(tmp_path)):
        with pytest.raises(UsageError, match=r"would mix with the run .*: choose another folder"):
            export(store, LocalStore(inside), "hf")
