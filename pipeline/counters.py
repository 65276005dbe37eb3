"""Beam's counters of a job, all in one namespace."""

from apache_beam.metrics.metric import Metrics, MetricsFilter
from apache_beam.runners.runner import PipelineResult

_NAMESPACE = "bark_beam"


def count(name: str, number: int = 1) -> None:
    """Adds to a counter of the job; a step's `..._in` and `..._out` tell what it did."""
    Metrics.counter(_NAMESPACE, name).inc(number)


def counted(result: PipelineResult) -> dict[str, int]:
    """The counters of a finished job by name; none where its runner tells none."""
    try:
        found = result.metrics().query(MetricsFilter().with_namespace(_NAMESPACE))["counters"]
    except NotImplementedError:
        return {}
    counters: dict[str, int] = {}
    for counter in found:  # one a step
        name = counter.key.metric.name
        counters[name] = counters.get(name, 0) + (counter.result or 0)  # None where a step counted nothing
    return counters
