"""Audio seconds a second: this project against transformers, the same clips on the same machine in the same run.

    python -m benchmarks.throughput                                bark-small, 16 clips
    python -m benchmarks.throughput --sweep-only                   which setting is the fastest
    python -m benchmarks.throughput --settings ours:bfloat16:8 peers:bfloat16:8:dynamic     these alone, no sweep
    python -m benchmarks.throughput --model bark --clips 64 --slots 1 16 64 --rows 1 16 32      on an accelerator

Random weights at the real sizes; clips of 60 to 500 semantic tokens, seeded, their lengths forced (greedy decoding and
an end token that is never the best). Each contender runs in a process of its own. First the unit costs of settings
are measured; the whole workload then runs at the setting that they predict to be the fastest, on both sides.
Bark-small on two cores: 6 minutes for the sweep, 14 for the rest.
Needs bark_model, torch and transformers only.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bark_model.config import BarkConfig
from benchmarks import limit, predict
from benchmarks.processes import ChildFailed, call
from benchmarks.workload import SIZES, STAGES, clip_lengths, gibibytes, machine, table

OURS, PEER = "bark-beam", "transformers"
MODES = ("sdpa", "flash_attention_2", "static", "compiled")
"""What transformers is tried with beside its defaults ("dynamic"); see peers.py."""
MODE_LIMIT_S = 240
"""What a mode may take to compile and be measured; after it the mode counts as stopped."""
LATENCY_TOKENS = 150
OURS_UNITS = "semantic_prefill coarse_prefill semantic_step_low semantic_step_high coarse_step fine audio".split()
PEER_UNITS = "semantic_position semantic_step coarse_position coarse_step fine audio".split()


@dataclass(frozen=True)
class Setting:
    """An engine, its dtype, rows that run together (slots, or a batch), and transformers' mode."""

    engine: str
    dtype: str
    rows: int
    mode: str = ""

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """From `ours:bfloat16:8` or `peers:bfloat16:8:dynamic`. Raises argparse.ArgumentTypeError."""
        match text.split(":"):
            case ["ours", dtype, rows] if rows.isdecimal():
                return cls(OURS, dtype, int(rows))
            case ["peers", dtype, rows, mode] if rows.isdecimal():
                return cls(PEER, dtype, int(rows), mode)
        raise argparse.ArgumentTypeError(f"{text!r} is no setting: ours:DTYPE:SLOTS or peers:DTYPE:ROWS:MODE")

    def run(self, folder: str, lengths: Sequence[int]) -> dict:
        """The whole workload, as `ours.run` and `peers.run` report it. Raises ChildFailed."""
        common = {"folder": folder, "lengths": lengths, "dtype": self.dtype, "rows": self.rows}
        return call("ours:run", **common) if self.engine == OURS else call("peers:run", mode=self.mode, **common)

    @property
    def cells(self) -> list:
        return [self.engine, self.dtype, self.rows, self.mode]


class Sweep:
    """Unit costs of settings, and which setting they predict to be the fastest."""

    def __init__(self, folder: str, config: BarkConfig, lengths: Sequence[int]):
        self.folder, self.config, self.lengths = folder, config, lengths
        self.costs: dict[Setting, dict[str, float]] = {}
        self.failed: list[list[str]] = []

    def measure(self, engine: str, dtype: str, rows: Sequence[int], mode: str = "") -> None:
        """Adds settings that differ in rows; a failure is kept with its reason."""
        new = [r for r in dict.fromkeys(rows) if Setting(engine, dtype, r, mode) not in self.costs]
        common = {"folder": self.folder, "dtype": dtype, "rows": new}
        try:
            if not new:
                return
            if engine == OURS:
                found = call("ours:units", **common)
            else:
                found = call("peers:units", limit_s=MODE_LIMIT_S if mode != "dynamic" else None, mode=mode, **common)
        except ChildFailed as error:
            self.failed.append([engine, dtype, ", ".join(map(str, new)), mode, str(error)])
            return
        self.costs |= {Setting(engine, dtype, r, mode): found["units"][str(r)] for r in new}

    def predicted(self, setting: Setting, lengths: Sequence[int]) -> float:
        formula = predict.ours if setting.engine == OURS else predict.transformers
        return formula(self.costs[setting], self.config, lengths, setting.rows)

    def best(self, engine: str, lengths: Sequence[int]) -> Setting:
        candidates = [setting for setting in self.costs if setting.engine == engine]
        if not candidates:
            raise SystemExit(f"no setting of {engine} ran: {self.failed}")
        return min(candidates, key=lambda setting: self.predicted(setting, lengths))

    def ours(self, dtypes: Sequence[str], slots: Sequence[int], everything: bool) -> None:
        """Every dtype at one number of slots, then the best one at the others; or everything."""
        for dtype in dtypes:
            self.measure(OURS, dtype, slots if everything else slots[1:2] or slots)
        self.measure(OURS, self.best(OURS, self.lengths).dtype, slots)

    def transformers(self, dtypes: Sequence[str], rows: Sequence[int], modes: Sequence[str], everything: bool) -> None:
        """Every dtype at one batch size, the best one at the others, then the modes at the best; or everything."""
        for dtype in dtypes:
            self.measure(PEER, dtype, rows if everything else rows[1:2] or rows, "dynamic")
        dtype = self.best(PEER, self.lengths).dtype
        self.measure(PEER, dtype, rows, "dynamic")
        best = self.best(PEER, self.lengths)
        for mode in modes:
            for one in dtypes if everything else [dtype]:
                self.measure(PEER, one, rows if everything else [rows[0], best.rows], mode)

    def report(self) -> str:
        """Tables of the unit costs, of what they predict, and of the settings that did not run."""
        parts = []
        for engine, names in ((OURS, OURS_UNITS), (PEER, PEER_UNITS)):
            rows = [
                [*setting.cells, *(1000 * costs[name] for name in names), self.predicted(setting, self.lengths)]
                for setting, costs in self.costs.items()
                if setting.engine == engine
            ]
            columns = ["engine", "dtype", "rows", "mode", *(f"{name} ms" for name in names), "workload s, predicted"]
            parts.append(table(columns, rows))
        if self.failed:
            parts.append(table(["engine", "dtype", "rows", "mode", "did not run"], self.failed))
        return "\n\n".join(parts)


COLUMNS = [
    "engine, dtype, rows, mode, audio s/s, total s",
    *(f"{stage} s" for stage in STAGES),
    "semantic tokens/s, coarse tokens/s, busy semantic, busy coarse, busy fine, compile s, host GiB, device GiB",
]


def speed(made: dict) -> float:
    """Audio seconds a second."""
    return made["audio_s"] / made["total_s"]


def cells(setting: Setting, made: dict) -> list:
    """A row of the results; see COLUMNS."""
    stage_s = made["stage_s"]
    return [
        *setting.cells,
        speed(made),
        made["total_s"],
        *(stage_s[stage] for stage in STAGES),
        *(made["tokens"][stage] / stage_s[stage] for stage in ("semantic", "coarse")),
        *(f"{100 * made['busy'][stage]:.0f} %" for stage in ("semantic", "coarse", "fine")),
        made["compile_s"],
        gibibytes(made["host_bytes"]),
        gibibytes(made["device_bytes"]),
    ]


def results(runs: Sequence[tuple[Setting, dict]]) -> str:
    """The table of whole runs, and by how much the best of ours is faster than the best of transformers."""
    best = {engine: max(speed(made) for setting, made in runs if setting.engine == engine) for engine in (OURS, PEER)}
    ratio = f"**{best[OURS] / best[PEER]:.2f} times** the best setting of {PEER}"
    return table(", ".join(COLUMNS).split(", "), [cells(*run) for run in runs]) + "\n\n" + ratio


def _run_all(folder: str, lengths: Sequence[int], settings: Sequence[Setting]) -> list[tuple[Setting, dict]]:
    runs = []
    for setting in settings:
        try:
            made = setting.run(folder, lengths)
            print(f"{setting}: {made['total_s']:.1f} s for {made['audio_s']:.1f} s of audio", file=sys.stderr)
            runs.append((setting, made))
        except ChildFailed as error:
            raise SystemExit(f"{setting}: {error}") from error
    return runs


def benchmark(folder: str, options: argparse.Namespace) -> None:
    """Prints one section after the other as soon as it is measured."""
    config = BarkConfig.from_folder(folder)
    lengths = clip_lengths(options.clips, config.generation.max_new_tokens)
    single = [min(LATENCY_TOKENS, config.generation.max_new_tokens)]
    if options.settings:
        chosen = options.settings
        alone = [replace(setting, rows=1) for setting in chosen]
    else:
        sweep = Sweep(folder, config, lengths)
        sweep.ours(options.our_dtypes, options.slots, options.full_sweep)
        sweep.transformers(options.dtypes, options.rows, options.modes, options.full_sweep)
        print(f"## Unit costs\n\n{sweep.report()}\n", flush=True)
        chosen = list(sweep.costs) if options.full_sweep else [sweep.best(engine, lengths) for engine in (OURS, PEER)]
        alone = [sweep.best(engine, single) for engine in (OURS, PEER)]
    if options.sweep_only:
        return
    runs = _run_all(folder, lengths, chosen)
    print(f"## {options.model}, {options.clips} clips of {min(lengths)} to {max(lengths)} semantic tokens\n")
    made = max((run for run in runs if run[0].engine == OURS), key=lambda run: speed(run[1]))
    print(f"{machine(made[1]['device'])}\n\n{results(runs)}\n\nPrograms of {' '.join(map(str, made[0].cells))}:\n")
    print(table(["program", "shape", "compile s"], made[1]["programs"]))
    print(f"\nCompiled while the clips ran: {made[1]['late_compile_s']:.2f} s.\n", flush=True)
    print(f"## Limit\n\n{_limit(config, lengths, *made)}\n", flush=True)
    firsts = _run_all(folder, single, alone)
    print(f"## First clip of a warm process, alone, {single[0]} semantic tokens\n\n{results(firsts)}")


def _limit(config: BarkConfig, lengths: Sequence[int], setting: Setting, made: dict) -> str:
    rates = limit.machine_rates(setting.dtype)
    return limit.report(config, lengths, setting.rows, setting.dtype, made["stage_s"], rates)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="bark-small")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 16], help="rows a device of ours")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 8, 16], help="batch sizes of transformers")
    parser.add_argument("--our-dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "float16"], help="of transformers")
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES, help="of transformers, beside its defaults")
    parser.add_argument("--full-sweep", action="store_true", help="the whole workload at every setting")
    parser.add_argument("--sweep-only", action="store_true", help="unit costs alone")
    parser.add_argument("--settings", type=Setting.parse, nargs="+", help="no sweep: one of ours, one of peers or more")
    options = parser.parse_args(arguments)
    if options.settings and {setting.engine for setting in options.settings} != {OURS, PEER}:
        parser.error("--settings needs at least one of ours and one of peers")
    with tempfile.TemporaryDirectory() as folder:
        call("workload:write_checkpoint", folder=folder, model=options.model)
        benchmark(folder, options)


if __name__ == "__main__":
    main()
