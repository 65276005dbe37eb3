"""A bucket's record: how it was dealt. From the plan's buckets alone the launcher knows every unit there must be."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from pipeline.errors import PipelineError
from pipeline.store import Corrupt, Store
from pipeline.units import Dealt


@dataclass(frozen=True, kw_only=True)
class BucketRecord:
    """`units` and `kept` name commits: those to be made and those that stay. See `Dealt` for the counts."""

    units: tuple[str, ...]
    kept: tuple[str, ...]
    records: int
    done: int
    removed: int


def bucket_path(generation: int, bucket: int) -> str:
    return f"_run/buckets/{generation:04d}/{bucket:06d}.json"


def write_bucket(store: Store, generation: int, bucket: int, dealt: Dealt) -> None:
    """Writes the record, create-only: the same plan deals the same, whoever does it."""
    record = BucketRecord(
        units=tuple(unit.name for unit in dealt.units),
        kept=dealt.kept,
        records=dealt.records,
        done=dealt.done,
        removed=dealt.removed,
    )
    store.create(bucket_path(generation, bucket), (json.dumps(asdict(record), sort_keys=True) + "\n").encode())


def read_buckets(store: Store, generation: int, buckets: int) -> Iterator[BucketRecord]:
    """The records of all buckets of a plan; PipelineError when one was not dealt."""
    return store.each(lambda bucket: _read(store, bucket_path(generation, bucket)), range(buckets))


def _read(store: Store, path: str) -> BucketRecord:
    if store.size(path) is None:
        raise PipelineError(f"{store.uri}/{path} is not there: the run is not finished, start it again")
    try:
        values = json.loads(store.read(path))
        return BucketRecord(**values | {"units": tuple(values["units"]), "kept": tuple(values["kept"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"{store.uri}/{path} is damaged ({type(error).__name__}): remove it and run again") from error
