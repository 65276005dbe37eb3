"""The whole pipeline on one screen. Only text and stored tokens are shuffled, never audio.

    shards -> records -> ready records \\
                                        by bucket -> units -> synthesised -> committed
    earlier commits -> their records   /
"""

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import PCollection
from apache_beam.runners.runner import PipelineResult

from pipeline.job import Job
from pipeline.plan import Plan
from pipeline.runners import beam_runner
from pipeline.steps import CommitUnits, DealUnits, PrepareRecords, ReadCommits, ReadShards, RequestUnits
from pipeline.synthesize import BarkModelHandler, UnitModelHandler


def run_graph(job: Job, plan: Plan, beam_flags: list[str]) -> PipelineResult:
    """Runs the job on its runner until every unit of the plan is committed, or raises what the runner raises.

    The result has the job's counters.
    """
    options = PipelineOptions([*beam_flags, f"--runner={beam_runner(job.runner)}"], save_main_session=False)
    with beam.Pipeline(options=options) as pipeline:
        build_graph(pipeline, job, plan)
    return pipeline.result


def build_graph(pipeline: beam.Pipeline, job: Job, plan: Plan) -> PCollection:
    """Adds the graph; the result is a small summary of each committed unit."""
    found = (
        pipeline
        | "ListShards" >> beam.Create(list(plan.shards))
        | "SpreadShards" >> beam.Reshuffle()
        | "ReadShards" >> beam.ParDo(ReadShards(job, plan))
        | "PrepareRecords" >> beam.ParDo(PrepareRecords(job, plan))
    )
    earlier = (
        pipeline
        | "ListCommits" >> beam.Create(list(plan.base))
        | "SpreadCommits" >> beam.Reshuffle()
        | "ReadCommits" >> beam.ParDo(ReadCommits(job.output, plan.buckets))
    )
    buckets = pipeline | "ListBuckets" >> beam.Create([(bucket, None) for bucket in range(plan.buckets)])
    return (
        {"found": found, "earlier": earlier, "bucket": buckets}
        | "GroupByBucket" >> beam.CoGroupByKey()
        | "DealUnits" >> beam.ParDo(DealUnits(job.output, plan))
        | "SpreadUnits" >> beam.Reshuffle()
        | "RequestUnits" >> beam.ParDo(RequestUnits(job, plan))
        | "Synthesize" >> RunInference(model_handler(job, plan))
        | "CommitUnits" >> beam.ParDo(CommitUnits(job, plan))
    )


def model_handler(job: Job, plan: Plan) -> ModelHandler:
    """The handler of a job, which refuses other weights than the planned ones."""
    bark = BarkModelHandler(
        job.checkpoint,
        slots=job.devices.slots,
        dtype=job.devices.dtype,
        start=job.stages.from_,
        to=job.stages.to,
        timeout_s=job.devices.timeout_s,
        sha256=plan.identity["checkpoint"],
        compilation_cache=job.devices.compilation_cache,
        low_memory=job.devices.low_memory,
    )
    return UnitModelHandler(bark).with_no_batching()
