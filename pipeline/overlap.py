"""A step that works beside its bundle: a device need not wait for reading, encoding and writing."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue


@dataclass(frozen=True, kw_only=True)
class _UnderWay:
    """An element that is being worked on, and the place in time of its outputs."""

    worked: Future
    timestamp: Any
    window: Any


class OverlappedDoFn(beam.DoFn):
    """`work` on an element runs on a thread of the step's own while the bundle goes on; one element at a time.

    An element's outputs leave when the next one comes, or with the end of the bundle, which waits. So the steps after
    this one see element n while `work` is on n + 1, and those before it make n + 1 while `work` is on n. An exception
    of `work` fails the bundle in the same place.
    """

    def work(self, element: Any) -> Any:
        """What takes long. On another thread than Beam's: it must not touch Beam's metrics."""
        raise NotImplementedError

    def outputs(self, worked: Any) -> Iterable[Any]:
        """The elements that follow from what `work` gave, on Beam's thread."""
        raise NotImplementedError

    def setup(self):
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=type(self).__name__)

    def start_bundle(self):
        self._under_way: _UnderWay | None = None

    def process(self, element, timestamp=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
        before = self._take()
        worked = self._pool.submit(self.work, element)
        self._under_way = _UnderWay(worked=worked, timestamp=timestamp, window=window)
        yield from before

    def finish_bundle(self):
        yield from self._take()

    def teardown(self):
        self._pool.shutdown()

    def _take(self) -> list[WindowedValue]:
        """Waits for the element under way, if there is one, and gives its outputs."""
        if self._under_way is None:
            return []
        one, self._under_way = self._under_way, None
        outputs = self.outputs(one.worked.result())
        return [WindowedValue(output, one.timestamp, (one.window,)) for output in outputs]
