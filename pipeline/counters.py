"""Beam's counters of a job, all in one namespace."""

from apache_beam.metrics.metric import Metrics


def count(name: str, number: int = 1) -> None:
    """Adds to a counter of the job; a step's `..._in` and `..._out` tell what it did."""
    Metrics.counter("bark_beam", name).inc(number)
