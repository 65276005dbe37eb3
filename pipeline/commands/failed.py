"""`bark-beam failed`: the failed records as JSON lines, or another try for them alone."""

import json
import sys
from argparse import Namespace

from pipeline.errors import UsageError
from pipeline.jobfile import JOB_FILE, load_stored
from pipeline.launch import check, launch
from pipeline.manifest import load_manifest
from pipeline.outputs.failed import clean
from pipeline.status import current_commits, is_finished, open_run
from pipeline.store import NotFound


def failed(options: Namespace, flags: list[str]) -> int:
    """Lists the failed records; with --retry runs the job again for them, with flags as `run` takes them."""
    if options.retry:
        return _retry(options, flags)
    with open_run(options.output) as (store, _):
        for commit in current_commits(store):
            for entry in commit.failed:
                sys.stdout.write(json.dumps(clean(entry.record), ensure_ascii=False) + "\n")
    return 0


def _retry(options: Namespace, flags: list[str]) -> int:
    with open_run(options.output) as (store, plan):
        try:
            data = store.read(JOB_FILE)
        except NotFound as error:
            raise UsageError(f"{store.uri} has no {JOB_FILE}: run the job file again instead") from error
        if is_finished(store, plan) and load_manifest(store).failed == 0:
            print(f"nothing failed in {store.uri}: nothing is left to try again")
            return 0
    job, beam_flags = load_stored(data, options.output, flags)
    return launch(check(job, retry_failed=True, shards=plan.shards), beam_flags, debug=options.debug)
