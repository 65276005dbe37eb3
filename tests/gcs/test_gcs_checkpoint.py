"""A checkpoint in a bucket: fetched once, its checksums compared; what stops that is one line and leaves nothing."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bark_model import Checkpoint, CheckpointError
from bark_model.fetch import cache_folder, cached_url
from pipeline.cli import main
from pipeline.store import open_store
from tests.gcs.server import FaultProxy, Rule
from tests.gcs.test_gcs_job import is_content_of, one_line, without_login
from tests.lanes import free_port
from tests.pipeline.conftest import Project, checkpoint, project, spawning

__all__ = ["checkpoint", "project", "spawning"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    """An empty cache of our own."""
    monkeypatch.setenv("BARK_BEAM_CACHE", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def uploaded(gcs: str, prefix: str, checkpoint: str) -> str:
    """The tiny checkpoint in the bucket, beside a file that is none of it; its URL."""
    with open_store(f"{prefix}/model") as store:
        store.create("README.md", b"no")
        for path in Path(checkpoint).rglob("*"):
            if path.is_file():
                store.create(path.relative_to(checkpoint).as_posix(), path.read_bytes())
    return f"{prefix}/model"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(url: str) -> str:
    """The one line by which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        cached_url(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_fetched_once_and_whole(uploaded: str, checkpoint: str, faults: FaultProxy):
    opened = Checkpoint.open(uploaded)
    assert files_in(opened.folder) == files_in(Path(checkpoint))
    assert opened.sha256 == Checkpoint.open(checkpoint).sha256
    assert any("alt=media" in target for _, target in faults.seen)
    faults.seen.clear()
    assert cached_url(f"{uploaded}/") == cached_url(uploaded) == opened.folder
    assert not any("alt=media" in target for _, target in faults.seen)


def test_a_file_of_several_blocks_is_whole(uploaded: str, checkpoint: str, monkeypatch):
    monkeypatch.setattr("bark_model.object_store._BLOCK_BYTES", 100_000)
    assert Checkpoint.open(uploaded).sha256 == Checkpoint.open(checkpoint).sha256


def test_a_job_runs_with_it(uploaded: str, project: Project, cache: Path):
    project.write(a_txt="One.\nTwo.\n")
    assert project.run(checkpoint=uploaded) == 0
    assert len(project.rows()) == 2
    assert files_in(cache)


@pytest.mark.parametrize("fault", ["503", "429", "reset", "flipped"])
def test_a_passing_fault_is_retried(uploaded: str, checkpoint: str, faults: FaultProxy, fault: str):
    rule = Rule(fault, is_content_of("model.safetensors"))
    faults.rules.append(rule)
    assert Checkpoint.open(uploaded).sha256 == Checkpoint.open(checkpoint).sha256
    assert rule.hits == 1


def test_bytes_that_differ_from_the_listing_are_not_kept(
    uploaded: str, checkpoint: str, faults: FaultProxy, cache: Path
):
    rule = Rule("flipped", is_content_of("model.safetensors"), times=2)
    faults.rules.append(rule)
    assert refused(uploaded) == (
        f"{uploaded}/model.safetensors arrived with another crc32c than listed, twice: check the network and try again"
    )
    assert rule.hits == 2
    kept = files_in(cache)
    assert not [path for path in kept if "model.safetensors" in path]  # no partial file either
    assert set(kept.values()) <= set(files_in(Path(checkpoint)).values())
    assert Checkpoint.open(uploaded).sha256 == Checkpoint.open(checkpoint).sha256


@pytest.mark.parametrize(("part", "shown"), [("prefix=", "checkpoint '{}'"), ("alt=media", "{}/SHA256SUMS")])
def test_403_is_one_line_at_once(uploaded: str, faults: FaultProxy, cache: Path, part: str, shown: str):
    rule = faults.add("403", "GET", part, times=100)
    assert refused(uploaded) == (
        f"{shown.format(uploaded)} cannot be read: access denied (403): "
        "grant this account 'Storage Object Viewer' on the bucket"
    )
    assert rule.hits == 1
    assert not files_in(cache)


def test_403_ends_a_command_with_one_line_and_exit_2(uploaded: str, project: Project, faults: FaultProxy, capfd):
    faults.add("403", "GET", "prefix=", times=100)
    project.write(a_txt="One.\n")
    assert project.run(command="plan", checkpoint=uploaded) == 2
    assert "cannot be read: access denied (403): grant this account" in one_line(capfd.readouterr().err)


def test_a_bucket_that_is_not_there(gcs: str):
    assert refused("gs://no-such-bucket/model") == (
        "checkpoint 'gs://no-such-bucket/model' cannot be read: it is not there: check the bucket and the path"
    )


def test_a_dead_server_is_one_line(monkeypatch, capfd):
    async def no_wait(_: float) -> None:
        """The waits between gcsfs's tries are 35 s."""

    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=no_wait))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    assert main(["voices", "list", "--checkpoint", "gs://bucket/model"]) == 2
    assert one_line(capfd.readouterr().err) == (
        "bark-beam: checkpoint 'gs://bucket/model' cannot be read: "
        "the server did not answer (ClientConnectorError): check the network and try again"
    )


def test_a_server_that_is_silent_is_given_up(uploaded: str, faults: FaultProxy, cache: Path, monkeypatch):
    monkeypatch.setattr("bark_model.object_store._CALL_S", 2)
    rule = Rule("stalled", is_content_of("SHA256SUMS"))
    faults.rules.append(rule)
    assert refused(uploaded) == (
        f"{uploaded}/SHA256SUMS cannot be read: "
        "the server did not answer (FSTimeoutError): check the network and try again"
    )
    assert rule.hits == 1
    assert not files_in(cache)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_dead_server_is_given_up_within_a_minute_and_a_half(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{free_port()}")
    assert "the server did not answer (ClientConnectorError)" in refused("gs://bucket/model")


def test_without_a_login_a_command_says_so_in_one_line(spawning: Project, tmp_path: Path):
    full = [sys.executable, "-m", "pipeline.cli", "voices", "list", "--checkpoint", "gs://bucket/model"]
    done = subprocess.run(full, env=without_login(tmp_path), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "bark-beam: checkpoint 'gs://bucket/model' cannot be read: gs:// needs a Google login: "
        "run `gcloud auth application-default login`\n",
    )
