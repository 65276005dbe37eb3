"""`bark-beam run`: check, freeze the plan, run the graph, write the manifest."""

from argparse import Namespace

from pipeline.jobfile import load
from pipeline.launch import check, launch


def run(options: Namespace, flags: list[str]) -> int:
    """Runs or resumes a job file."""
    job, beam_flags = load(options.job, flags)
    return launch(check(job, force=options.force), beam_flags, debug=options.debug)
