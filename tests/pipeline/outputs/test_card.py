"""The dataset card as the hub parses it."""

from pathlib import Path

import pytest
import yaml

from pipeline.outputs.audio_parquet import schema
from pipeline.outputs.card import audio_info
from pipeline.outputs.unit_files import Layout
from pipeline.store import LocalStore
from tests.pipeline.small_run import small_run


@pytest.mark.parametrize(("where", "names"), [("files", ["tokens"]), ("parquet", ["audio", "tokens"])])
def test_the_card_names_every_parquet_file_and_no_other(tmp_path: Path, where: str, names: list[str]):
    store = LocalStore(tmp_path / "out")
    manifest = small_run(store, Layout(where=where))
    store.create("tokens/stray.parquet", b"")
    _, front, text = store.read("README.md").decode().split("---\n", 2)
    card = yaml.safe_load(front)
    assert [config["config_name"] for config in card["configs"]] == names
    assert [config.get("default", False) for config in card["configs"]] == [True, False][: len(names)]
    paths = [path for config in card["configs"] for files in config["data_files"] for path in files["path"]]
    assert sorted(paths) == sorted(
        file.path for shard in manifest.shards for file in shard.files if file.kind != "failed"
    )
    assert ("dataset_info" in card) == (where == "parquet")
    assert card["task_categories"] == ["text-to-speech"]
    assert "| records | 4 |" in text


def test_the_columns_told_are_those_of_the_files():
    names = [feature["name"] for feature in audio_info("audio", 24000)["features"]]
    assert names == schema(24000).names
