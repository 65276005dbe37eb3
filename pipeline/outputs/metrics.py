"""`_run/metrics.json`: what each start of a run took. The only output that knows the time, so it never repeats."""

import json
from dataclasses import asdict, dataclass, field

from pipeline.store import Conflict, Corrupt, Store

METRICS = "_run/metrics.json"
_KEPT_STARTS = 100


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One start of a run, from launch to its end, whether it finished or not.

    `started` is UTC in ISO 8601; `records`, `chunks` and `audio_s` are those made by this start, not the ones found
    done. `device` is the platform and number of a worker's devices (`gpu x 2`), empty where no worker of this machine
    loaded a model. `counters` are the job's own, by name: the slot-steps of each stage, and how many held a row.
    `seconds` is the device time of each stage, `start_up_s` the time until workers were ready, both summed over
    workers; `compiled` the seconds until each program was ready.
    """

    started: str
    wall_s: float
    finished: bool
    records: int = 0
    failed: int = 0
    chunks: int = 0
    units: int = 0
    units_skipped: int = 0
    audio_s: float = 0.0
    start_up_s: float = 0.0
    runner: str = "local"
    device: str = ""
    slots: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    compiled: dict[str, float] = field(default_factory=dict)

    @property
    def times_real_time(self) -> float:
        """Seconds of audio a second of this start."""
        return self.audio_s / self.wall_s if self.wall_s > 0 else 0.0


def add_metrics(store: Store, metrics: Metrics) -> None:
    """Adds a start to the file; the newest hundred are kept."""
    for _ in range(5):
        version = store.version(METRICS)
        starts = [] if version is None else read_metrics(store)
        data = _dump([*starts, metrics][-_KEPT_STARTS:])
        try:
            if version is None:
                store.create(METRICS, data)
            else:
                store.replace(METRICS, data, expected=version)
            return
        except Conflict:
            continue  # another run on this output wrote its own meanwhile: add to that
    raise Conflict(f"{store.uri}/{METRICS} is being rewritten by other runs: stop all but one")


def read_metrics(store: Store) -> list[Metrics]:
    """Every start that is kept, oldest first; none when there is no file."""
    if store.size(METRICS) is None:
        return []
    try:
        values = json.loads(store.read(METRICS))["starts"]
        for start in values:
            start.pop("times_real_time")
        return [Metrics(**start) for start in values]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Corrupt(f"{store.uri}/{METRICS} is damaged ({type(error).__name__}): remove it") from error


def _dump(starts: list[Metrics]) -> bytes:
    values = [asdict(start) | {"times_real_time": round(start.times_real_time, 3)} for start in starts]
    return (json.dumps({"starts": values}, indent=1) + "\n").encode()
