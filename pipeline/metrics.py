"""How fast a run was: `_run/metrics.json`, the only file of an output that knows of time. `plan` reads its rate."""

import json

from pipeline.progress import Tally
from pipeline.store import NotFound, Store

METRICS = "_run/metrics.json"


def write_metrics(store: Store, made: Tally, elapsed_s: float) -> None:
    """Notes what the last run made and in how long, if it made anything."""
    if not made.made:
        return
    values = {
        "records": made.made,
        "audio_s": round(made.audio_s, 3),
        "elapsed_s": round(elapsed_s, 3),
        "audio_s_per_s": round(made.audio_s / elapsed_s, 4),
    }
    store.put(METRICS, (json.dumps(values, indent=1) + "\n").encode())


def measured_rate(store: Store) -> float | None:
    """Audio seconds a second of the last run into this output, or None."""
    try:
        rate = json.loads(store.read(METRICS))["audio_s_per_s"]
    except (NotFound, ValueError, TypeError, KeyError):
        return None
    return rate if isinstance(rate, int | float) and rate > 0 else None
