"""The whole job against a real GCS server: texts, output, resume and reprocess all on gs://, equal to a local run."""

import pytest

from pipeline.cli import main
from pipeline.commit import read_file_rows
from pipeline.manifest import load_manifest
from pipeline.store import Store, open_store
from tests.gcs.server import BUCKET, running_server

TEXTS = {
    "in/a.txt": b"Hello there.\nA second line.\nNOSPEECH\n",
    "in/b.jsonl": b'{"id": "x", "text": "One.", "voice": "random_0"}\n{"id": "bad"\n',
}


@pytest.fixture
def bucket(monkeypatch):
    """The URI of an empty bucket, whose server all clients find."""
    with running_server() as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield f"gs://{BUCKET}"


def files(store: Store) -> dict[str, bytes]:
    """Every file but those that name where the input lay or how long the run took."""
    left_out = ("_run/metrics.json", "_run/job.yaml", "_run/plan-0000.json")
    return {entry.path: store.read(entry.path) for entry in store.list() if entry.path not in left_out}


def test_a_run_on_gcs_equals_the_local_one_and_resumes(project, bucket):
    texts = open_store(f"{bucket}/corpus")
    for path, content in TEXTS.items():
        texts.create(path, content)
        local = project.folder / path
        local.parent.mkdir(exist_ok=True)
        local.write_bytes(content)
    assert project.run() == 3
    project.synthesised()

    output = f"{bucket}/run"
    remote = {"input": f"{bucket}/corpus/in/*", "output": output}
    assert project.run(**remote) == 3
    assert files(open_store(output)) == files(project.store)

    project.synthesised()
    texts.create("in/c.txt", b"Grown.\n")
    assert project.run(**remote) == 3
    assert project.synthesised() == ["c.txt:1/0"]
    for command in ("status", "verify", "failed"):
        assert main([command, output]) == 0

    again = {"input": output, "output": f"{bucket}/again", "job": "reprocess", "stages": {"from": "fine"}}
    assert project.run(**again) == 0
    first, second = open_store(output), open_store(f"{bucket}/again")
    assert sounds(second) == sounds(first)


def sounds(store: Store) -> dict[str, str | None]:
    """The PCM checksum of every chunk's record."""
    shards = load_manifest(store).shards
    found = [file for shard in shards for file in shard.files if file.kind == "tokens"]
    return {row.id: row.audio_sha256 for file in found for row in read_file_rows(store, file)}
