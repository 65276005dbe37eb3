"""`bark-beam voices`: the presets of a checkpoint, a check of a file, a voice from a result."""

from argparse import Namespace
from pathlib import Path

from bark_model.voices import list_presets, make_voice, read_voice_npz, voice_npz
from pipeline.commands.target import target_file
from pipeline.errors import UsageError, excerpt
from pipeline.manifest import load_manifest, read_shard_commit
from pipeline.model import open_checkpoint
from pipeline.outputs.tokens import TokenRow, read_tokens
from pipeline.prepare import read_voice
from pipeline.status import open_run
from pipeline.store import Store


def voices(options: Namespace, flags: list[str]) -> int:
    """Lists, checks or makes a voice."""
    if options.action == "check":
        return _check(options)
    if options.action == "from":
        return _take(options)
    names = list_presets(open_checkpoint(getattr(options, "checkpoint", "demo")).folder)
    for name in sorted(names):
        print(name)
    return 0


def _check(options: Namespace) -> int:
    file = Path(options.file)
    if not file.is_file():
        raise UsageError(f"{options.file}: there is no such file")
    voice = read_voice_npz(
        options.file, read_voice(options.file), open_checkpoint(options.checkpoint).config.generation
    )
    print(f"{options.file} is a voice: {voice.semantic.size} semantic tokens, {voice.fine.shape[1]} frames")
    return 0


def _take(options: Namespace) -> int:
    target = target_file(options.voice_file)
    with open_run(options.output) as (store, plan):
        row = _find(store, options.id)
    if row.semantic is None or row.coarse is None or row.fine is None:
        raise UsageError(f"{excerpt(options.id)} has no fine tokens: a voice needs a run with stages.to fine or audio")
    arrays = {"semantic_prompt": row.semantic, "coarse_prompt": row.coarse, "fine_prompt": row.fine}
    known = open_checkpoint(row.model or "demo")
    if known.sha256 != plan.identity["checkpoint"]:
        raise UsageError(f"checkpoint {row.model!r} is no longer the one that made {excerpt(options.id)}")
    voice = make_voice(options.id, arrays, known.config.generation)
    target.write_bytes(voice_npz(voice))
    print(f"{options.voice_file}: use it as --voice {options.voice_file}")
    return 0


def _find(store: Store, wanted: str) -> TokenRow:
    """The row of a chunk's id, or the first of a record's."""
    for shard in load_manifest(store).shards:
        commit = read_shard_commit(store, shard)
        if not any(wanted == record.id or wanted.startswith(f"{record.id}/") for record in commit.done):
            continue
        for file in commit.files:
            if file.kind == "tokens":
                with store.open(file.path) as opened:
                    for row in read_tokens(opened):
                        if wanted in (row.id, row.record_id):
                            return row
    raise UsageError(f"{store.uri} has no record or chunk {excerpt(wanted)}")
