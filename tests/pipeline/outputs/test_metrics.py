"""Metrics: starts are added, also by two runs at once."""

from pathlib import Path

import pytest

from pipeline.outputs.metrics import METRICS, Metrics, add_metrics, read_metrics
from pipeline.store import Corrupt, LocalStore


def start(n: int = 0, **values) -> Metrics:
    return Metrics(started=f"2026-01-01T00:00:{n:02d}Z", wall_s=10.0, finished=True, audio_s=25.0, **values)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def test_starts_are_added(store: LocalStore):
    assert read_metrics(store) == []
    add_metrics(store, start(0, counters={"retries": 2}, seconds={"semantic": 1.5}))
    add_metrics(store, start(1))
    assert read_metrics(store) == [start(0, counters={"retries": 2}, seconds={"semantic": 1.5}), start(1)]
    assert b'"times_real_time": 2.5' in store.read(METRICS)


def test_of_very_many_starts_the_newest_are_kept(store: LocalStore):
    for n in range(103):
        add_metrics(store, start(n))
    assert [len(read_metrics(store)), read_metrics(store)[0]] == [100, start(3)]


def test_a_start_added_meanwhile_is_not_lost(store: LocalStore, monkeypatch):
    add_metrics(store, start(0))
    version, meanwhile = store.version, []

    def slow_version(path: str) -> str | None:
        found = version(path)
        if not meanwhile:
            meanwhile.append(True)
            add_metrics(LocalStore(store.uri), start(1))
        return found

    monkeypatch.setattr(store, "version", slow_version)
    add_metrics(store, start(2))
    assert read_metrics(store) == [start(0), start(1), start(2)]


@pytest.mark.parametrize("data", [b"", b"{}", b'{"starts": [{}]}'])
def test_a_damaged_file_says_so(store: LocalStore, data: bytes):
    store.create(METRICS, data)
    with pytest.raises(Corrupt, match=r"metrics\.json is damaged \(\w+\): remove it"):
        read_metrics(store)
