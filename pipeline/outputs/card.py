"""The dataset card that goes with a run's output, as the Hugging Face hub reads it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import yaml

_TEXT = """
# Synthetic speech

Made with [Bark](https://github.com/suno-ai/bark) by bark-beam. Every voice here is synthetic.

| | |
|---|---|
{rows}

{note}
"""


class FinishedRun(Protocol):
    """What a card tells of a run."""

    @property
    def done(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def audio_s(self) -> float: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def shards(self) -> Sequence: ...


def dataset_card(run: FinishedRun) -> str:
    """The card of an output folder: a configuration for its tokens, and one for its audio when that is in Parquet.

    Files are named one by one, as the manifest does: what else may lie in the folder does not count.
    """
    configs = {}
    for name, kind in (("audio", "audio_parquet"), ("tokens", "tokens")):
        if paths := [file.path for shard in run.shards for file in shard.files if file.kind == kind]:
            configs[name] = paths
    rows = {
        "records": run.done,
        "failed records": run.failed,
        "chunks": run.chunks,
        "hours of audio": f"{run.audio_s / 3600:.2f}",
        "sample rate": f"{run.sample_rate} Hz, mono",
        "fingerprint": f"`{run.fingerprint[:16]}`",
    }
    infos = [audio_info("audio", run.sample_rate)] if "audio" in configs else []
    return make_card(rows, configs, infos, note="`_MANIFEST.json` lists every file with its checksum.")


def audio_info(config: str, sample_rate: int) -> dict[str, object]:
    """The `dataset_info` of a configuration whose files `audio_parquet` wrote."""
    audio = {"name": "audio", "dtype": {"audio": {"sampling_rate": sample_rate}}}
    texts = [{"name": name, "dtype": "string"} for name in ("id", "text", "language", "voice")]
    features = [*texts, audio, {"name": "duration_s", "dtype": "float64"}]
    return {"config_name": config, "features": features}


def make_card(
    rows: Mapping[str, object], configs: Mapping[str, Sequence[str]], infos: Sequence[Mapping], *, note: str
) -> str:
    """A card from its facts, its configurations (name -> paths below the card; the first is the default) and what is
    known of their columns."""
    header: dict[str, object] = {
        "pretty_name": "Synthetic speech",
        "task_categories": ["text-to-speech"],
        "tags": ["audio", "speech", "synthetic", "bark"],
    }
    if configs:
        header["configs"] = [
            {"config_name": name, "data_files": [{"split": "train", "path": list(paths)}]}
            | ({"default": True} if number == 0 else {})
            for number, (name, paths) in enumerate(configs.items())
        ]
    if infos:
        header["dataset_info"] = list(infos)
    front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=120)
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"---\n{front}---\n" + _TEXT.format(rows=table, note=note)
