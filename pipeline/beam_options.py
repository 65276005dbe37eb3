"""The runner and Beam's own options. Beam drops what it does not know with a warning and runs on defaults: here that
is an error."""

import argparse
import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

from pipeline.errors import UnknownOption, UsageError

logging.disable(logging.WARNING)  # Beam warns about its [gcp] extra, which nothing here needs, at every import
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser  # noqa: E402

logging.disable(logging.NOTSET)


class _Parser(_BeamArgumentParser):
    """Every option Beam knows. Raises UsageError where argparse would end the process."""

    def __init__(self):
        super().__init__(allow_abbrev=False, add_help=False, conflict_handler="resolve")
        for options in PipelineOptions.__subclasses__():
            options._add_argparse_args(self)

    def error(self, message):
        raise UsageError(f"Beam option: {message}")


def beam_flags(options: Mapping[str, Any], job_keys: Collection[str]) -> list[str]:
    """Options by name -> Beam's command line, every name and value checked by Beam's own parser.

    True is a bare flag and false leaves it out; a list repeats the flag and a mapping becomes JSON. An unknown name
    is an UnknownOption with the nearest one among Beam's and the job's keys; UsageError for a list where Beam would
    take its last item only.
    """
    parser, flags = _Parser(), []
    known = {option.removeprefix("--"): action for action in parser._actions for option in action.option_strings}
    for name, value in options.items():
        if name not in known or name == "runner":
            raise UnknownOption(name, [*job_keys, *sorted(known)])
        items = value if isinstance(value, list) else [value]
        if len(items) > 1 and type(known[name]) is argparse._StoreAction:
            raise UsageError(f"option {name!r} has {len(items)} values, takes one")
        for item in items:
            if item is True:
                flags.append(f"--{name}")
            elif item is not False and item is not None:
                flags.append(f"--{name}={json.dumps(item) if isinstance(item, dict) else item}")
    parser.parse_args(flags)
    return flags
