"""What a run costs as its records and devices grow, and what Beam itself takes.

    python -m benchmarks.scale                                     everything, up to 10,000 records: about half an hour
    python -m benchmarks.scale --records 10 100 --devices 1 2

`bark-beam run` as users start it, on a Bark of random weights at a tiny size whose clips all last 1.8 s. Beam's own
share is measured with a stand-in model, which costs next to nothing, in one process whose every other part is timed.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.processes import ROOT
from benchmarks.workload import machine, table, write_checkpoint
from pipeline.outputs.metrics import METRICS, Metrics, read_metrics
from pipeline.store import LocalStore

SLOTS = 5
"""Divides every number of records, so that no run is measured with idle slots."""
UNIT_AUDIO_S = 200
DEVICE_RECORDS = 400
REPEATED_UP_TO, REPEATS = 100, 5
"""Short runs are repeated and the median taken: no two of them start in the same time."""
GREEDY = {"semantic": {"temperature": 0, "min_eos_p": None}, "coarse": {"temperature": 0}, "fine": {"temperature": 0}}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One `bark-beam run`: its duration from start to exit, peak memory of its two processes, what it says it did."""

    wall_s: float
    launcher_mb: float
    worker_mb: float
    metrics: Metrics

    @property
    def ready_s(self) -> float:
        """Its duration without imports, loading of weights and compilation."""
        return self.wall_s - self.metrics.start_up_s


class Bench:
    """A folder with a checkpoint, and the jobs run in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        write_checkpoint(str(folder / "checkpoint"), "tiny")

    def job(self, name: str, lines: Sequence[str]) -> Path:
        """A job file that reads these lines; jobs of as many read the same file, as its name is kept with a run."""
        text = self.folder / f"{len(lines)}.txt"
        text.write_text("".join(f"{line}\n" for line in lines))
        values = {
            "input": str(text),
            "output": str(self.folder / name / "out"),
            "checkpoint": str(self.folder / "checkpoint"),
            "sampling": GREEDY,
            "devices": {"slots": SLOTS, "compilation_cache": str(self.folder / "compiled")},
            "unit_audio_s": UNIT_AUDIO_S,
            "max_failed": "100%",
        }
        path = self.folder / name / "job.yaml"
        path.parent.mkdir()
        path.write_text(yaml.safe_dump(values))
        return path

    def run(self, name: str, lines: Sequence[str], devices: int = 1) -> Run:
        """Runs a job in processes of its own, on so many forced host devices."""
        job = self.job(name, lines)
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        command = [sys.executable, "-m", "pipeline.cli", "run", str(job)]
        with tempfile.TemporaryFile("w+") as said:
            start = time.perf_counter()
            launcher = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said)
            ended, launcher_mb = 0, 0.0
            while not ended:
                launcher_mb = max(launcher_mb, peak_mb(launcher.pid))
                time.sleep(0.02)
                ended, status, used = os.wait4(launcher.pid, os.WNOHANG)
            wall_s, launcher.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
            if launcher.returncode not in (0, 3):
                said.seek(0)
                raise SystemExit(f"the run of {name} ended with status {launcher.returncode}: {said.read()}")
        [metrics] = read_metrics(LocalStore(job.parent / "out"))
        return Run(wall_s=wall_s, launcher_mb=launcher_mb, worker_mb=used.ru_maxrss / 1024, metrics=metrics)

    def digest(self, name: str) -> str:
        """One sum of every file of an output but the one that tells of time."""
        digest, out = hashlib.sha256(), self.folder / name / "out"
        for path in sorted(out.rglob("*")):
            if path.is_file() and path != out / METRICS:
                digest.update(str(path.relative_to(out)).encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()


def spoken(records: int) -> list[str]:
    return [f"Short record {number}." for number in range(records)]


def peak_mb(pid: int) -> float:
    """VmHWM: the most memory that a process held so far; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def scale_table(bench: Bench, counts: Iterable[int]) -> str:
    """Cost per audio second beyond a start: the same command with one record that cannot be spoken."""
    cold = bench.run("cold", ["..."])
    starts = [bench.run(f"start-{n}", ["..."]) for n in range(REPEATS)]
    fixed_s, rows = statistics.median(run.ready_s for run in starts), []
    for records in counts:
        repeats = REPEATS if records <= REPEATED_UP_TO else 1
        runs = [bench.run(f"records-{records}-{n}", spoken(records)) for n in range(repeats)]
        made = runs[0].metrics
        taken_s = statistics.median(run.ready_s for run in runs) - fixed_s
        device_s = statistics.median(sum(run.metrics.seconds.values()) for run in runs)
        peaks = max(run.launcher_mb for run in runs), max(run.worker_mb for run in runs)
        each = [1000 * seconds / made.audio_s for seconds in (taken_s, device_s)]
        rows.append([records, made.audio_s, statistics.median(run.wall_s for run in runs), *each, *peaks])
    columns = "records, audio s, wall s, ms an audio s, of these device ms, launcher MB, worker MB".split(", ")
    warm_s = statistics.median(run.wall_s for run in starts)
    return f"{table(columns, rows)}\n\nA start: {cold.wall_s:.1f} s, with programs compiled before {warm_s:.1f} s."


def devices_table(bench: Bench, counts: Iterable[int]) -> str:
    """The same job on forced host devices, which share the cores: equal bytes; speed only up to the cores."""
    rows, first = [], None
    for devices in counts:
        run = bench.run(f"devices-{devices}", spoken(DEVICE_RECORDS), devices)
        digest = bench.digest(f"devices-{devices}")
        first = first or digest
        rows.append([devices, run.metrics.audio_s / run.ready_s, "the same" if digest == first else "others"])
    return table(["devices", "audio s a second", "bytes of the output"], rows)


@dataclass(frozen=True)
class Spans:
    """The times, on any thread, at which code of the project ran and not Beam's."""

    spans: list[tuple[float, float]]

    def timed(self, function: Callable) -> Callable:
        def run(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.spans.append((start, time.perf_counter()))

        return run

    def timed_items(self, function: Callable) -> Callable:
        def run(*args, **kwargs):
            items = iter(function(*args, **kwargs))
            following = self.timed(lambda: next(items, None))
            while (item := following()) is not None:
                yield item

        return run

    @property
    def covered_s(self) -> float:
        """Seconds in which at least one span lay."""
        total, end = 0.0, 0.0
        for first, last in sorted(self.spans):
            total += max(0.0, last - max(first, end))
            end = max(end, last)
        return total


def beam_seconds(job_file: Path) -> float:
    """Runs a job's graph in this process with a stand-in model: the time in which nothing but Beam ran."""
    from pipeline import graph, launch, steps
    from pipeline.jobfile import load
    from pipeline.plan import write_plan
    from pipeline.prepare import Preparer
    from pipeline.synthesize import BarkModelHandler

    spans = Spans([])
    checked = launch.check(load(str(job_file))[0])
    write_plan(checked.store, checked.plan)
    places = [
        (Preparer, "prepare"),
        (steps, "deal"),
        (steps, "write_bucket"),
        (steps.RequestUnits, "work"),
        (steps.CommitUnits, "work"),
        (BarkModelHandler, "load_model"),
        (BarkModelHandler, "run_inference"),
    ]
    originals = [(place, name, getattr(place, name)) for place, name in [*places, (steps, "read_input")]]
    for place, name, original in originals:
        setattr(place, name, (spans.timed_items if name == "read_input" else spans.timed)(original))
    try:
        start = time.perf_counter()
        graph.run_graph(checked.job, checked.plan, [])
        return time.perf_counter() - start - spans.covered_s
    finally:
        for place, name, original in originals:
            setattr(place, name, original)


def beam_table(bench: Bench, counts: Iterable[int], device_ms: Iterable[float]) -> str:
    """Beam's time by records, and the share that it would be, at the rate of the longest run, beside a real model's."""
    from tests.pipeline import fakes

    sys.modules["bark_model.bark"] = fakes
    beam_seconds(bench.job("beam-first", spoken(SLOTS)))  # imports
    seconds = {n: beam_seconds(bench.job(f"beam-{n}", spoken(n))) for n in counts}
    rows = [[n, taken, 1000 * taken / n] for n, taken in seconds.items()]
    each = 1000 * seconds[max(seconds)] / max(seconds)
    shares = ", ".join(f"{each / (each + ms):.2%} beside {ms:g} ms of device time a record" for ms in device_ms)
    return table(["records", "Beam alone s", "ms a record"], rows) + f"\n\nBeam's share: {shares}."


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, nargs="*", default=[10, 100, 1000, 10_000], help="runs to compare")
    parser.add_argument("--devices", type=int, nargs="*", default=[1, 2, 4, 8], help="forced host devices to compare")
    parser.add_argument("--beam", type=int, nargs="*", default=[100, 1000, 10_000], help="records beside Beam alone")
    parser.add_argument("--device-ms", type=float, nargs="*", default=[100, 1000], help="of a record, for Beam's share")
    options = parser.parse_args(arguments)
    print(machine("cpu"), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        if options.records:
            print("\n" + scale_table(bench, options.records), flush=True)
        if options.devices:
            print("\n" + devices_table(bench, options.devices), flush=True)
        if options.beam:
            print("\n" + beam_table(bench, options.beam, options.device_ms), flush=True)


if __name__ == "__main__":
    main()
