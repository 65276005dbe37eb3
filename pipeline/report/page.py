"""The report as one HTML file: no script, nothing fetched, every text of the input escaped."""

import base64
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

from pipeline.devices import usage_of
from pipeline.display import duration, shares
from pipeline.outputs.metrics import Metrics
from pipeline.report.findings import Clip, Findings, Mark, Sound

_BINS = 30
_WIDTH, _HEIGHT = 300, 90
_LISTED = 20
_MIME = {"flac": "audio/flac", "wav": "audio/wav", "mp3": "audio/mpeg", "opus": "audio/ogg"}
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4a7fb5; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid var(--line); padding: .3em .8em .3em 0;
text-align: left; vertical-align: top; } .figures { display: flex; flex-wrap: wrap; gap: 1em 2.5em; margin-top: 1em; }
.figures b { display: block; font-size: 1.4em; } figure { display: inline-block; margin: 0 2em 1em 0; }
rect { fill: var(--bar); } svg { border-bottom: 1px solid var(--line); } figcaption, small { opacity: .75; }
audio { height: 2em; vertical-align: middle; } pre { border: 1px solid var(--line); padding: .8em; overflow-x: auto; }
td { overflow-wrap: anywhere; }
"""


def render(found: Findings) -> str:
    """The page. It holds the audio of its clips, so that it can be sent and kept alone."""
    sections = [
        ("How long it took", _starts(found.starts)),
        ("What failed", _failures(found)),
        ("How the audio measures", _measures(found)),
        ("Clips that measure unlike the others", "".join(map(_mark, found.marks))),
        ("Clips to hear", _sounds(found.samples)),
        ("The job", f"<pre>{escape(found.job)}</pre>" if found.job else ""),
    ]
    body = "".join(f"<h2>{title}</h2>\n{content}\n" for title, content in sections if content)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>bark-beam: {escape(found.uri)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>bark-beam report</h1>\n<p>{escape(found.uri)}: {_state(found)}</p>\n"
        f"{_figures(found)}\n{body}</body></html>\n"
    )


def _state(found: Findings) -> str:
    now = found.status
    if now.finished:
        return "finished"
    of_units = f" of {now.units}" if now.units is not None else ""
    return f"not finished, {now.committed}{of_units} units are committed"


def _figures(found: Findings) -> str:
    now, wall_s = found.status, sum(start.wall_s for start in found.starts)
    figures = {
        "records done": f"{now.done}",
        "records failed": f"{now.failed}",
        "audio": duration(now.audio_s),
        "time, all starts": duration(wall_s),
    }
    made_s = sum(start.audio_s for start in found.starts)
    if made_s and wall_s:
        figures["times real time"] = f"{made_s / wall_s:.2g}"
    return '<div class="figures">' + "".join(f"<div><b>{v}</b>{name}</div>" for name, v in figures.items()) + "</div>"


def _starts(starts: Sequence[Metrics]) -> str:
    """A line a start of the run, the newest last."""
    rows = [
        (
            start.started.replace("T", " ").removesuffix("+00:00") + ("" if start.finished else " (stopped)"),
            duration(start.wall_s),
            f"{start.records} made, {start.failed} failed",
            duration(start.audio_s),
            f"{start.times_real_time:.2g}",
            start.device or start.runner,
            shares({stage: one.busy / one.slots for stage, one in usage_of(start.counters).items()}),
            shares({stage: s / sum(start.seconds.values()) for stage, s in start.seconds.items() if s}),
        )
        for start in starts[-_LISTED:]
    ]
    header = ("started (UTC)", "took", "records", "audio", "times real time", "on", "slots busy", "device time")
    return _table(header, rows)


def _failures(found: Findings) -> str:
    rows = [
        (
            stage,
            error,
            str(kind.count),
            "; ".join(f"{one.id[:80]} ({one.source}): {one.message}" for one in kind.examples),
        )
        for (stage, error), kind in found.failures.items()
    ]
    note = f"<p><small>All of them: bark-beam failed {escape(found.uri)}</small></p>"
    return _table(("stage", "error", "records", "the first"), rows) + note if rows else ""


def _measures(found: Findings) -> str:
    if not found.clips:
        return ""
    part = "" if found.measured == found.units else f" of {found.measured} of {found.units} units, evenly spread"
    charts = [
        _histogram("seconds a clip", [clip.row.duration_s for clip in found.clips]),
        _histogram("level, dBFS (rms)", [clip.row.rms_dbfs for clip in found.clips]),
        _histogram("characters a second", [clip.characters_a_second for clip in found.clips]),
    ]
    counts: dict[str, Callable[[Clip], str | None]] = {
        "stopped by": lambda clip: clip.row.stop_reason,
        "language": lambda clip: clip.row.language,
        "voice": lambda clip: clip.row.voice or "none",
    }
    rows = [(name, _counted(key(clip) for clip in found.clips)) for name, key in counts.items()]
    return f"<p>{len(found.clips)} clips{part}</p>\n" + "".join(charts) + _table((), rows)


def _counted(values: Iterable[str | None]) -> str:
    counts = Counter(value for value in values if value is not None).most_common()
    more = f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
    return ", ".join(f"{value} {count}" for value, count in counts[:_LISTED]) + more


def _histogram(name: str, values: Sequence[float | None]) -> str:
    """An SVG of how often values fall where; nothing without values."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return ""
    low, high = known[0], known[-1]
    width = (high - low) / _BINS or 1.0
    counts = Counter(min(int((value - low) / width), _BINS - 1) for value in known)
    tallest = max(counts.values())
    bars = "".join(
        f'<rect x="{bin_ * _WIDTH / _BINS:.0f}" y="{_HEIGHT * (1 - count / tallest):.1f}" '
        f'width="{_WIDTH / _BINS - 1:.0f}" height="{_HEIGHT * count / tallest:.1f}">'
        f"<title>{low + bin_ * width:.1f} to {low + (bin_ + 1) * width:.1f}: {count}</title></rect>"
        for bin_, count in sorted(counts.items())
    )
    return (
        f'<figure><svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{name}">{bars}</svg><figcaption>'
        f"{name}: {low:.1f} to {high:.1f}, half below {statistics.median(known):.1f}</figcaption></figure>"
    )


def _mark(mark: Mark) -> str:
    return f"<p>{mark.count} {'clip' if mark.count == 1 else 'clips'} {escape(mark.name)}</p>\n{_sounds(mark.sounds)}"


def _sounds(sounds: Sequence[Sound]) -> str:
    return _table((), [(_Html(_player(sound)), _described(sound.clip), sound.clip.row.text or "") for sound in sounds])


def _player(sound: Sound) -> str:
    if sound.data is None:
        return escape(f"{sound.clip.row.audio_path} (too large for this page)")
    mime = _MIME[sound.file_name.rpartition(".")[2]]
    return f'<audio controls preload="none" src="data:{mime};base64,{base64.b64encode(sound.data).decode()}"></audio>'


def _described(clip: Clip) -> str:
    row = clip.row
    parts = [row.record_id[:80], row.voice, row.language, row.stop_reason]
    return ", ".join([part for part in parts if part] + [f"{row.duration_s:.1f} s"] * (row.duration_s is not None))


class _Html(str):
    """Text that is HTML already."""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what is not HTML already is escaped. Nothing without rows."""
    lines = ["".join(f"<td>{cell if isinstance(cell, _Html) else escape(cell)}</td>" for cell in row) for row in rows]
    if not lines:
        return ""
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr>\n" if header else ""
    return f"<table>\n{head}" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"
