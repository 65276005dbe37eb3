"""The plan of a run: what is frozen before the first worker starts, so that every attempt cuts the same units.

`_run/plan-0000.json` is written create-only. A grown input, or failed records to try again, start a new generation
whose base is the commits that were there at that moment, by name.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.commit import COMMITS
from pipeline.errors import UsageError, excerpt
from pipeline.job import Job
from pipeline.jobfile import to_mapping
from pipeline.sources.shards import Shard
from pipeline.store import Conflict, Store

RESULT_VERSION = 1
"""Raised whenever the code gives other tokens or other PCM for the same input: old outputs are then refused."""

UNITS_PER_BUCKET = 8
MAX_BUCKETS = 4096
_BYTES_PER_AUDIO_S = {"dataset": 15, "reprocess": 1000}  # text is read at about 15 characters a second


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`identity` is all that decides results, `fingerprint` its digest; `base` names the earlier commits that count.

    `any_model` says that stored tokens of other models are used, too: --force, once given, holds for the output.
    """

    generation: int
    fingerprint: str
    identity: dict[str, Any]
    shards: tuple[Shard, ...]
    buckets: int
    unit_audio_s: float
    base: tuple[str, ...] = ()
    retry_failed: bool = False
    any_model: bool = False

    @property
    def tokens_of(self) -> str | None:
        """The model that stored tokens must be of; None for any."""
        return None if self.any_model else self.identity["checkpoint"]

    def same_input(self, shards: Sequence[Shard]) -> bool:
        """Whether the shards are the planned ones, by name and content, wherever they lie now."""
        return sorted((s.name, s.identity) for s in self.shards) == sorted((s.name, s.identity) for s in shards)


def identity(job: Job, *, checkpoint_sha256: str, voice_sha256: str | None) -> dict[str, Any]:
    """Everything of a job that changes results, as JSON. Records add their own text, voice and seed."""
    mapping = to_mapping(job)
    kept = {key: mapping[key] for key in ("job", "language", "sampling", "stages", "chunk", "audio")}
    return kept | {
        "seed": job.seed if job.job == "reprocess" else job.seed_of(None),
        "slots": job.devices.slots,
        "dtype": job.devices.dtype,
        "checkpoint": checkpoint_sha256,
        "voice": voice_sha256,
        "result_version": RESULT_VERSION,
    }


def digest(value: Any) -> str:
    """sha256 of a JSON value in its one canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def plan_path(generation: int) -> str:
    return f"_run/plan-{generation:04d}.json"


def manifest_path(generation: int) -> str:
    """Where the manifest of a finished generation is kept."""
    return f"_run/manifests/{generation:04d}.json"


def dump(plan: Plan) -> bytes:
    return (json.dumps(asdict(plan), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def from_mapping(values: dict[str, Any]) -> Plan:
    """A plan from the JSON object that `asdict` gave."""
    shards = tuple(Shard(**shard) for shard in values["shards"])
    return Plan(**values | {"shards": shards, "base": tuple(values["base"])})


def parse(data: bytes, where: str) -> Plan:
    """A plan from its file; UsageError when that is damaged or of another version of this program."""
    try:
        return from_mapping(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{where} is no plan ({excerpt(error)}): choose another output") from error


def latest_plan(store: Store) -> Plan | None:
    """The plan of the newest generation, or None for an output that was never planned."""
    generation, found = 0, None
    while store.size(plan_path(generation)) is not None:
        found = plan_path(generation)
        generation += 1
    return parse(store.read(found), f"{store.uri}/{found}") if found else None


def next_plan(
    store: Store,
    job: Job,
    shards: Sequence[Shard],
    identity: dict[str, Any],
    *,
    force: bool = False,
    retry_failed: bool = False,
) -> tuple[Plan, bool]:
    """The plan to run, and whether it is new: the newest one where nothing changed, else a new generation.

    UsageError, naming what differs, when the output was made with another configuration and `force` is not given.
    """
    latest, fingerprint = latest_plan(store), digest(identity)
    any_model = job.job == "reprocess" and (force or (latest is not None and latest.any_model))
    common = {"fingerprint": fingerprint, "identity": identity, "shards": tuple(shards), "any_model": any_model}
    if latest is None:
        return _fresh(0, job, shards, common), True
    if latest.fingerprint != fingerprint:
        if not force:
            raise UsageError(_refusal(store, latest.identity, identity))
        return _fresh(latest.generation + 1, job, shards, common), True
    unfinished_retry = latest.retry_failed and store.size(manifest_path(latest.generation)) is None
    same = latest.same_input(shards) and latest.any_model == any_model
    if same and (not retry_failed or unfinished_retry):
        return replace(latest, shards=tuple(shards)), False
    plan = Plan(
        generation=latest.generation + 1,
        buckets=latest.buckets,  # a bucket keeps its commits for good: base and records meet in it
        unit_audio_s=job.unit_s,
        base=(*latest.base, *commits_of(store, latest.generation)),
        retry_failed=retry_failed,
        **common,
    )
    return plan, True


def _fresh(generation: int, job: Job, shards: Sequence[Shard], common: dict[str, Any]) -> Plan:
    buckets = _bucket_count(job, shards)
    return Plan(generation=generation, buckets=buckets, unit_audio_s=job.unit_s, **common)


def commits_of(store: Store, generation: int) -> tuple[str, ...]:
    """The names of a generation's commits, as they are now: `0000/000003-00001`."""
    prefix = f"{COMMITS}/{generation:04d}/"
    return tuple(
        entry.path.removeprefix(f"{COMMITS}/").removesuffix(".json")
        for entry in store.list(prefix)
        if entry.path.endswith(".json")
    )


def write_plan(store: Store, plan: Plan) -> None:
    """Freezes a new plan, create-only: of two runs that start at once, one wins and an equal one joins it."""
    try:
        store.create(plan_path(plan.generation), dump(plan))
    except Conflict as error:
        raise UsageError(
            f"{store.uri}: another run planned generation {plan.generation} meanwhile: run again"
        ) from error


def _bucket_count(job: Job, shards: Sequence[Shard]) -> int:
    audio_s = sum(shard.size_bytes for shard in shards) / _BYTES_PER_AUDIO_S[job.job]
    return max(1, min(MAX_BUCKETS, round(audio_s / (job.unit_s * UNITS_PER_BUCKET))))


def _refusal(store: Store, before: dict[str, Any], now: dict[str, Any]) -> str:
    changes = [f"{key} was {excerpt(old)}, is {excerpt(new)}" for key, old, new in _differences(before, now)]
    more = f" and {len(changes) - 2} more" if len(changes) > 2 else ""
    what = "; ".join(changes[:2]) + more
    return f"{store.uri} was made with another configuration ({what}): choose another output or add --force"


def _differences(before: Any, now: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        return [found for key in keys for found in _differences(before.get(key), now.get(key), f"{prefix}{key}.")]
    return [] if before == now else [(prefix.removesuffix("."), before, now)]
