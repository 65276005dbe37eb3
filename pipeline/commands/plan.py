"""`bark-beam plan`: everything that can be known of a job before a model runs."""

from argparse import Namespace
from collections.abc import Iterator

from pipeline.commit import read_commit
from pipeline.display import duration
from pipeline.errors import UsageError
from pipeline.estimate import Estimate, estimate, price_lines, result_key
from pipeline.inputs import no_record
from pipeline.job import Job
from pipeline.jobfile import load
from pipeline.launch import Checked, check, prepared_input, tell_of_random_weights
from pipeline.outputs.metrics import read_metrics
from pipeline.plan import commits_of
from pipeline.records import FailedRecord
from pipeline.units import Ready


def plan(options: Namespace, flags: list[str]) -> int:
    """Prints what the job would do; 2 when not one record could be synthesised, or more will fail than may."""
    for name in ("rate", "price"):
        if (value := getattr(options, name)) is not None and not 0 < value < 1e9:
            raise UsageError(f"--{name} is {value:g}, must be more than 0")
    job, _ = load(options.job, flags)
    checked = check(job, force=options.force)
    tell_of_random_weights(job.checkpoint)
    total = estimate(_with_tokens(checked), checked.plan, _done(checked))
    rate = options.rate or _measured_rate(checked)
    for line in (*_describe(checked, total), *price_lines(total.left_s, rate, options.price)):
        print(line)
    _refuse_hopeless(checked.job, total)
    return 0


def _refuse_hopeless(job: Job, total: Estimate) -> None:
    """UsageError where `run` could not end well."""
    if total.records == 0:
        raise no_record(job)
    if total.records == total.failing:
        raise UsageError(f"none of {total.records} records can be synthesised: see the failures above")
    if total.failing > job.allowed_failures(total.records):
        raise UsageError(
            f"{total.failing} of {total.records} records are known to fail, max_failed is {job.max_failed}: mend them, "
            "or raise --max_failed"
        )


def _measured_rate(checked: Checked) -> float | None:
    """Audio seconds a second of the last start into this output that made any."""
    rates = [start.times_real_time for start in read_metrics(checked.store) if start.audio_s > 0]
    return rates[-1] if rates else None


def _with_tokens(checked: Checked) -> Iterator[tuple[Ready | FailedRecord, int]]:
    count = checked.preparer.count_tokens
    for one in prepared_input(checked):
        yield one, sum(count(chunk.text) for chunk in one.chunks) if isinstance(one, Ready) else 0


def _describe(checked: Checked, total: Estimate) -> Iterator[str]:
    planned = checked.plan
    yield f"input       {len(planned.shards)} shards, {sum(shard.size_bytes for shard in planned.shards)} bytes"
    yield f"records     {total.records}, {len(total.documents)} documents, {total.chunks} chunks, {total.tokens} tokens"
    yield f"audio       about {duration(total.audio_s)}"
    yield f"done        {total.done} records"
    yield f"left        about {duration(total.left_s)}, in about {total.units} units of {planned.unit_audio_s:g} s"
    yield f"checkpoint  {checked.job.checkpoint}, sha256 {planned.identity['checkpoint'][:12]}"
    yield f"output      {checked.job.output}: {_standing(checked)}"
    for error, number in total.faults.most_common():
        yield f"will fail   {number} records: {error}"
    for one in total.examples:
        yield f"            {one}"


def _standing(checked: Checked) -> str:
    if not checked.is_new:
        return f"resumes generation {checked.plan.generation}"
    return f"starts generation {checked.plan.generation}"


def _done(checked: Checked) -> set[bytes]:
    """What the commits that count hold already: those of earlier generations and, when resuming, this one's."""
    names = [*checked.plan.base, *(() if checked.is_new else commits_of(checked.store, checked.plan.generation))]
    commits = checked.store.each(lambda name: read_commit(checked.store, name), names)
    return {result_key(record.id, record.fingerprint) for commit in commits for record in commit.done}
