"""Whatever a user hands over, a command ends with 0, 1, 2 or 3 and at most one line of error, and writes nothing else.

Readers, voices, texts, tokens and configs have fuzz tests of their own beside their modules; here all of it comes
through the door that users take.
"""

import contextlib
import gzip
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.jobfile import known_keys
from pipeline.model import open_checkpoint

from .conftest import Project

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(["1e-3", "~", "none"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
KEYS = st.sampled_from([key for key in known_keys() if key not in ("input", "output", "checkpoint", "cache_dir")])
ODD_KEYS = KEYS | st.text(max_size=10) | KEYS.map(lambda key: key[:-1])


@pytest.fixture
def desk(project: Project, monkeypatch) -> Project:
    """A project in the working directory, with an input of one good line."""
    monkeypatch.chdir(project.folder)
    project.write(a_txt="One.\n")
    return project


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(desk: Project, capsys, *arguments: str) -> int:
    """Runs a command: its exit code is the contract's, its error one line, and no file is made or changed."""
    before = files_below(desk.folder)
    capsys.readouterr()
    code = main(arguments)
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if not line.startswith("note: ")]
    assert code in (0, 1, 2, 3)
    assert "bark-beam: unexpected " not in said, said
    assert len(errors) == (code in (1, 2)), said
    assert all(line.startswith("bark-beam: ") and len(line) < 1000 for line in errors)
    assert files_below(desk.folder) == before
    return code


def plan(desk: Project, capsys, *flags: str) -> int:
    return check(desk, capsys, "plan", str(desk.folder / "job.yaml"), *flags)


def nested(values: dict) -> dict:
    """{"a.b": 1} -> {"a": {"b": 1}}"""
    mapping: dict = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        level = mapping
        for parent in parents:
            inner = level.setdefault(parent, {})
            level = inner if isinstance(inner, dict) else {}
        level[last] = value
    return mapping


@fuzz
@given(values=st.dictionaries(ODD_KEYS, JSON, max_size=4))
def test_job_files_of_known_keys_and_any_values(desk: Project, capsys, values: dict):
    text = yaml.safe_dump(desk.values | nested(values), allow_unicode=True)
    (desk.folder / "job.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    plan(desk, capsys)


@fuzz
@given(data=st.binary(max_size=100) | st.text(alphabet="ab:-[]{}&*!|>%@`\"'#,? \n\t", max_size=80).map(str.encode))
def test_job_files_of_any_text(desk: Project, capsys, data: bytes):
    (desk.folder / "job.yaml").write_bytes(data)
    assert plan(desk, capsys) == 2


@fuzz
@given(flags=st.lists(st.tuples(ODD_KEYS, st.text(max_size=12) | SCALARS.map(str)), max_size=3))
def test_overrides_of_any_kind(desk: Project, capsys, flags: list):
    (desk.folder / "job.yaml").write_text(yaml.safe_dump(desk.values))
    plan(desk, capsys, *(word for key, value in flags for word in (f"--{key}", value)))


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)  # no shell passes NUL


@fuzz
@given(words=st.lists(st.sampled_from(["run", "plan", "status", "--x", "-o", "--", ""]) | WORDS))
def test_command_lines_of_any_words(desk: Project, capsys, words: list):
    with contextlib.suppress(SystemExit):  # how argparse ends --help
        check(desk, capsys, *words)


PARQUET = io.BytesIO()
pq.write_table(pa.table({"id": ["a", "b"], "text": ["One.", "Two."]}), PARQUET)
WELL_FORMED = {
    "txt": b"One.\nTwo.\n",
    "jsonl": b'{"id": "a", "text": "One."}\n',
    "csv": b"id,text\na,One.\n",
    "parquet": PARQUET.getvalue(),
    "txt.gz": gzip.compress(b"One.\nTwo.\n"),
    "jsonl.zst": pa.compress(b'{"text": "One."}\n', codec="zstd", asbytes=True),
}


def damaged(data: bytes, cuts: list[tuple[int, bytes]]) -> bytes:
    """The bytes with pieces laid over them at places that wrap around."""
    changed = bytearray(data)
    for place, piece in cuts:
        start = place % (len(changed) + 1)
        changed[start : start + len(piece)] = piece
    return bytes(changed)


CUTS = st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4)


@pytest.mark.parametrize("ending", WELL_FORMED)
@settings(fuzz, max_examples=25)
@given(junk=st.binary(max_size=80), cuts=CUTS, is_junk=st.booleans())
def test_records_of_any_bytes(desk: Project, capsys, ending: str, junk: bytes, cuts: list, is_junk: bool):
    shutil.rmtree(desk.folder / "in")
    (desk.folder / "in").mkdir()
    (desk.folder / "in" / f"a.{ending}").write_bytes(junk if is_junk else damaged(WELL_FORMED[ending], cuts))
    (desk.folder / "job.yaml").write_text(yaml.safe_dump(desk.values))
    assert plan(desk, capsys) in (0, 2)


@fuzz
@given(cuts=CUTS, keys=st.lists(st.sampled_from(["semantic_prompt", "coarse_prompt", "fine_prompt", "x"]), unique=True))
def test_voices_of_any_bytes(desk: Project, capsys, cuts: list, keys: list):
    file, made = desk.folder / "mine.npz", io.BytesIO()
    np.savez(made, **{key: np.arange(24).reshape(2, 12) for key in keys})
    file.write_bytes(damaged(made.getvalue(), cuts))
    assert check(desk, capsys, "voices", "check", str(file), "--checkpoint", desk.values["checkpoint"]) == 2
    (desk.folder / "job.yaml").write_text(yaml.safe_dump(desk.values | {"voice": str(file)}))
    assert plan(desk, capsys) == 2


@settings(fuzz, max_examples=40)
@given(
    name=st.sampled_from(["config.json", "generation_config.json", "tokenizer.json"]),
    value=JSON,
    cuts=CUTS,
    whole=st.booleans(),
)
def test_checkpoints_of_any_json(desk: Project, capsys, name: str, value, cuts: list, whole: bool):
    folder = desk.folder / "checkpoint"
    shutil.copytree(desk.values["checkpoint"], folder, dirs_exist_ok=True)
    path = next(iter(folder.rglob(name)), folder / name)
    path.write_bytes(json.dumps(value).encode() if whole else damaged(path.read_bytes(), cuts))
    open_checkpoint.cache_clear()
    (desk.folder / "job.yaml").write_text(yaml.safe_dump(desk.values | {"checkpoint": str(folder)}))
    plan(desk, capsys)


@pytest.fixture
def run(desk: Project) -> Project:
    """A finished run, to be spoiled."""
    desk.write(b_txt="Two.\nNOSPEECH\n")
    assert desk.run() == 3
    return desk


@settings(fuzz, max_examples=40)
@given(kind=st.sampled_from(["tokens", "_run", "_MANIFEST", "failed"]), which=st.integers(0, 99), cuts=CUTS)
def test_commands_on_outputs_with_damaged_files(run: Project, capsys, kind: str, which: int, cuts: list):
    spoiled = sorted(
        path
        for path in run.output.rglob("*")
        if path.is_file() and path.relative_to(run.output).parts[0].startswith(kind)
    )
    path = spoiled[which % len(spoiled)]
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, cuts))
    for command in ("status", "verify", "failed"):
        capsys.readouterr()
        code = main([command, str(run.output)])
        said = capsys.readouterr()
        assert code in (0, 1, 2)
        assert len(said.err.splitlines()) <= 1
        assert "bark-beam: unexpected " not in said.err, (path, said.err)
        assert command != "verify" or code or path.read_bytes() == whole or kind == "_run"
    path.write_bytes(whole)


@settings(fuzz, max_examples=40)
@given(cuts=CUTS, start=st.sampled_from(["semantic", "coarse", "fine"]))
def test_token_parquet_of_any_bytes(run: Project, capsys, cuts: list, start: str):
    tokens = sorted((run.output / "tokens").glob("*.parquet"))[0]
    file = run.folder / "tokens.parquet"
    file.write_bytes(damaged(tokens.read_bytes(), cuts))
    values = {"job": "reprocess", "input": str(file), "stages": {"from": start}, "output": str(run.folder / "again")}
    (run.folder / "job.yaml").write_text(yaml.safe_dump(run.values | values))
    assert plan(run, capsys) in (0, 2)
