"""A small project to run jobs in: a tiny checkpoint, a fake Bark, and `main` with its output read back."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

from bark_model.random_checkpoint import write_random
from pipeline import launch
from pipeline.cli import main
from pipeline.commit import read_file_rows
from pipeline.manifest import load_manifest
from pipeline.model import open_checkpoint
from pipeline.outputs.audio import decode
from pipeline.outputs.metrics import METRICS
from pipeline.outputs.tokens import TokenRow
from pipeline.report import REPORT
from pipeline.status import current_commits
from pipeline.store import LocalStore

from . import fakes

ROOT = Path(__file__).resolve().parents[2]
TIMINGS = {METRICS, REPORT}
"""The only files that may differ from run to run."""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """The folder of a checkpoint of random weights, for its constants, tokenizer and voices."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_random(folder)
    return str(folder)


class Project:
    """Texts, a job file and an output in one folder."""

    def __init__(self, folder: Path, checkpoint: str):
        self.folder, self.output = folder, folder / "out"
        self.notes = folder / "notes"
        self.values = {
            "input": [f"{folder}/in/*"],
            "output": str(self.output),
            "checkpoint": checkpoint,
            "max_failed": "100%",
            "unit_audio_s": 5,
        }

    def write(self, **shards: str | list[Mapping]) -> None:
        """Shards by name: `a_txt` is in/a.txt with the text, `b_jsonl` has a line for each mapping."""
        for name, content in shards.items():
            path = self.folder / "in" / ".".join(name.rsplit("_", 1))
            path.parent.mkdir(exist_ok=True)
            lines = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
            path.write_text(lines, encoding="utf-8")

    def run(self, *flags: str, command: str = "run", **values) -> int:
        """`bark-beam run` on a job file of `values`; the exit code."""
        job = self.folder / "job.yaml"
        job.write_text(yaml.safe_dump(self.values | values), encoding="utf-8")
        return main([command, str(job), *flags])

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.output)

    def rows(self) -> dict[str, TokenRow]:
        """The token rows of a finished run, by chunk id."""
        files = [file for shard in load_manifest(self.store).shards for file in shard.files if file.kind == "tokens"]
        rows = [row for file in files for row in read_file_rows(self.store, file)]
        assert len({row.id for row in rows}) == len(rows)
        return {row.id: row for row in rows}

    def failed(self) -> dict[str, str]:
        """Error names of the failed records, by id."""
        return {entry.record.id: entry.record.error for one in current_commits(self.store) for entry in one.failed}

    def results(self) -> dict[str, tuple]:
        """What must not depend on how a run was cut or ordered: tokens and PCM by chunk id."""
        return {
            row.id: (
                row.text,
                *(None if one is None else one.tolist() for one in (row.semantic, row.fine)),
                row.audio_sha256,
            )
            for row in self.rows().values()
        }

    def pcm(self, row: TokenRow) -> np.ndarray:
        """int16 [L]: the audio file a row names."""
        samples, rate = decode((self.output / str(row.audio_path)).read_bytes())
        assert rate == 24000
        return samples

    def noted(self, word: str) -> list[str]:
        """What the fake wrote down: a line a call, without the process id."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line.split(" ", 2)[-1] for line in lines if line.split(" ")[1] == word]

    def synthesised(self) -> list[str]:
        """All chunk ids that the model was asked for and answered, sorted; and forgets them."""
        ids = sorted(one for line in self.noted("synthesize") for one in line.split())
        self.notes.write_text("")
        return ids

    def tree(self) -> dict[str, bytes]:
        """Every file of the output with its bytes, but for those that tell of time."""
        files = {str(path.relative_to(self.output)): path for path in self.output.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in files.items() if name not in TIMINGS}


@pytest.fixture
def spawning(tmp_path, checkpoint, monkeypatch) -> Iterator[Project]:
    """A project whose runs start child interpreters, each with the fake Bark."""
    project = Project(tmp_path, checkpoint)
    monkeypatch.setenv("FAKE_BARK_NOTES", str(project.notes))
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent / 'fake_site'}:{ROOT}")
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    monkeypatch.setitem(sys.modules, "bark_model.bark", fakes)
    yield project
    open_checkpoint.cache_clear()


@pytest.fixture
def project(spawning, monkeypatch) -> Project:
    """A project whose runs stay in this process: seconds faster, and without the supervisor."""

    def run_here(job, plan, beam_flags, total, *, debug=False):
        from pipeline.graph import run_graph

        run_graph(job, plan, beam_flags)

    monkeypatch.setattr(launch, "supervise", run_here)
    return spawning
