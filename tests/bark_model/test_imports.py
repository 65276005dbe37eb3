"""Who imports whom: the arrows that keep the library light, the launcher quick and torch in one module."""

import ast
import subprocess
import sys
from pathlib import Path

import bark_model

ROOT = Path(bark_model.__file__).parent.parent
PACKAGES = [name for name in ("bark_model", "pipeline") if (ROOT / name / "__init__.py").is_file()]
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = ("jax", "flax", "torch", "transformers", "apache_beam")


def loaded_by(program: str) -> set[str]:
    """Top-level modules in a fresh process after a program."""
    program += "\nimport sys; print(' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def imports_of(path: Path) -> set[str]:
    """Full names of all modules a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def importers(*modules: str) -> set[str]:
    """The project's files that import any of the top-level modules."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if {name.split(".")[0] for name in imports_of(path)} & set(modules)
    }


def test_importing_the_library_is_light():
    loaded = loaded_by("import bark_model, bark_model.settings, bark_model.outcomes, bark_model.checkpoint")
    assert "bark_model" in loaded
    assert loaded.isdisjoint({*HEAVY, "pyarrow", "pipeline", "fsspec", "huggingface_hub"})


def test_opening_a_checkpoint_and_a_voice_is_light(folders):
    folder = str(folders["tiny"].folder)
    program = (
        "from bark_model import Checkpoint, load_voice; from bark_model.text import load_tokenizer;"
        f"c = Checkpoint.open({folder!r}); c.sha256; c.tensors('fine'); load_tokenizer(c.folder);"
        "load_voice('random_0', c.folder, c.config.generation)"
    )
    assert loaded_by(program).isdisjoint({*HEAVY, "pyarrow", "pipeline"})


def test_the_whole_library_needs_no_pipeline(folders):
    """Every module that a synthesis touches, the weights loaded onto the device."""
    folder = str(folders["tiny"].folder)
    loaded = loaded_by(f"from bark_model import Bark; Bark.load({folder!r}, slots=1).tokenizer")
    assert "jax" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "apache_beam", "pyarrow", "pipeline"})


def test_converting_safetensors_needs_no_torch(folders, tmp_path):
    folder, target = str(folders["tiny"].folder), str(tmp_path / "new")
    assert "torch" not in loaded_by(f"from bark_model.convert import convert; convert({folder!r}, {target!r})")


def test_torch_is_in_one_module():
    assert importers("torch") == {"bark_model/convert.py"}


def test_transformers_is_in_none():
    assert importers("transformers") == set()


def test_the_library_knows_nothing_of_the_pipeline():
    outside = importers("apache_beam", "pyarrow", "pipeline", "yaml", "tyro", "soundfile", "configs")
    assert not [path for path in outside if path.startswith("bark_model/")]


def test_object_stores_and_the_hub_are_each_in_one_module_of_the_library():
    for modules, module in ((("huggingface_hub",), "fetch"), (("fsspec", "gcsfs", "google"), "object_store")):
        assert {path for path in importers(*modules) if path.startswith("bark_model/")} == {f"bark_model/{module}.py"}


def test_the_command_line_starts_light():
    assert loaded_by("import pipeline.cli").isdisjoint({*HEAVY, "pyarrow", "huggingface_hub"})


def test_the_pipeline_never_computes():
    """jax and flax stay behind the library's door."""
    assert not [path for path in importers("jax", "flax", "jaxlib") if path.startswith("pipeline/")]


def test_pmap_is_in_one_module():
    used = {path.name for path in SOURCES if ".pmap(" in path.read_text() and "jax.pmap" in path.read_text()}
    assert used == {"replicated.py"}
