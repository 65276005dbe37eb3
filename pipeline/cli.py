"""The command line: `bark-beam COMMAND ...`. Each command imports what it needs when it runs; help needs nothing."""

import argparse
import contextlib
import io
import os
import select
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from pipeline.errors import PipelineError, UnknownOption, UsageError, nearest

EPILOG = """\
start here:
  bark-beam say "Hello there." -o hello.wav     one sentence, no job file
  bark-beam plan configs/demo.yaml              what a job would do, without running a model
  bark-beam run configs/demo.yaml               do it; start it again to resume
exit codes: 0 every record done, 3 finished with failed records, 1 the run failed, 2 wrong usage or input
"""


class _Once(argparse.Action):
    """A flag with a value. Of several argparse would take the last without a word."""

    given = False

    def __call__(self, parser, namespace, values, option_string=None):
        if self.given:
            parser.error(f"{option_string} is given more than once")
        self.given = True
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """One-line errors that name what is nearest; no abbreviated flags, which could shadow a key of the job file."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)
        self.register("action", None, _Once)
        self.set_defaults(parser=self)  # the innermost one stays: that of the command, or of its action

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}: see {self.prog} --help")

    def unknown(self, flag: str) -> UsageError:
        """The error for an argument that the command does not take."""
        hint = nearest(flag.strip("-").partition("=")[0], self.flags) or f": see {self.prog} --help"
        return UsageError(f"unknown argument {flag!r}{hint}")

    @property
    def flags(self) -> list[str]:
        """The names of its flags, without dashes."""
        return [flag.strip("-") for flag in self._option_string_actions]

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            hint = nearest(str(value), action.choices) or f", must be one of {', '.join(action.choices)}"
            raise UsageError(f"unknown {action.dest} {value!r}{hint}")


def parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    top = _Parser(
        prog="bark-beam", description="Bulk speech synthesis with Bark in JAX and Apache Beam.", epilog=EPILOG
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, function: str, text: str, description: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=description or f"{text[0].upper()}{text[1:]}.")
        made.add_argument("--debug", action="store_true", help="show tracebacks and the job's log")
        made.set_defaults(function=function)
        return made

    _add_job_commands(command)
    _add_output_commands(command)
    _add_voices(command("voices", "voices:voices", "list the voices, check one, or make one from a result"))
    _add_weights(command("weights", "weights:weights", "convert old checkpoint formats"))
    export = command("export", "export:export", "hand an output over to other tools")
    export.add_argument("output", help="the run's output")
    export.add_argument("--format", required=True, choices=("hf", "ljspeech", "nemo", "webdataset"), help="for what")
    export.add_argument("-o", "--to", help="the folder to write (OUTPUT-FORMAT, beside the output)")
    return top


def _add_job_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    overrides = (
        "Any key of the job file can be given as a flag, as in --output gs://bucket/run-2 or "
        "--sampling.semantic.temperature 0.6; Beam's options, as --direct_num_workers 2, too."
    )
    run = command("run", "run:run", "run a job; started again on the same output, it resumes", overrides)
    run.add_argument("job", help="the job file, such as configs/demo.yaml")
    run.add_argument("--force", action="store_true", help="make the output anew where its configuration differs")

    plan = command("plan", "plan:plan", "check a job and count what it would do, without a model", overrides)
    plan.add_argument("job", help="the job file")
    plan.add_argument("--rate", type=float, help="audio seconds made a second, for a time: a run's progress shows it")
    plan.add_argument("--price", type=float, help="price of an hour of the machine, for a cost")
    plan.add_argument("--force", action="store_true", help="plan what run --force would do")

    say = command("say", "say:say", "speak one text into a file, without Beam")
    say.add_argument("text", help="what to say; [laughs] and ♪ songs ♪ are understood")
    say.add_argument("-o", "--output", default="out.wav", help="a .wav, .flac, .mp3 or .opus file (%(default)s)")
    say.add_argument("--checkpoint", default="demo", help="demo, suno/bark, a folder, ... (%(default)s)")
    say.add_argument("--voice", default="none", help="a preset's name, an .npz, or none (%(default)s)")
    say.add_argument("--seed", type=int, default=0, help="another seed is another reading (%(default)s)")
    say.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 (%(default)s)")


def _add_output_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    status = command("status", "inspect:status", "how far a run is, also from another machine")
    status.add_argument("output", help="the run's output")

    report = command("report", "inspect:report", "write what a run made as a page to read and to listen to")
    report.add_argument("output", help="the run's output")

    verify = command("verify", "inspect:verify", "check every file of an output against its checksum and count")
    verify.add_argument("output", help="the run's output")

    failed = command("failed", "failed:failed", "list the failed records, or try them again")
    failed.add_argument("output", help="the run's output")
    failed.add_argument("--retry", action="store_true", help="run them again; takes the flags of run")


def _add_voices(voices: argparse.ArgumentParser) -> None:
    actions = voices.add_subparsers(dest="action", metavar="ACTION", parser_class=_Parser)
    listing = actions.add_parser("list", help="the presets of a checkpoint (this is done without an action, too)")
    listing.add_argument("--checkpoint", default="demo", help="whose voices (%(default)s)")
    checking = actions.add_parser("check", help="whether an .npz is a voice")
    checking.add_argument("file", help="the .npz")
    checking.add_argument("--checkpoint", default="demo", help="the model it is for (%(default)s)")
    taking = actions.add_parser("from", help="write a result's tokens as a voice")
    taking.add_argument("output", help="a run's output")
    taking.add_argument("id", help="the id of a record or chunk in it")
    taking.add_argument("-o", "--voice-file", default="voice.npz", help="the file to write (%(default)s)")


def _add_weights(weights: argparse.ArgumentParser) -> None:
    convert = weights.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    converting = convert.add_parser(
        "convert", help="to a folder of safetensors with checksums; needs bark-beam[convert]"
    )
    converting.add_argument("source", help="a hub name, a folder in HF's layout, or one with Suno's .pt files")
    converting.add_argument("target", help="the folder to write")
    converting.add_argument("--revision", help="of a hub name: a commit, for the same weights every time")
    converting.add_argument("--dtype", default="keep", help="keep, float32, bfloat16 or float16 (%(default)s)")
    converting.add_argument("--codec", help="for Suno's format: the EnCodec checkpoint, where the source has none")
    converting.add_argument("--tokenizer", help="for Suno's format: the tokenizer, where the source has none")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code is the contract's. Errors are one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # ids and texts hold what a locale's encoding may not
    debug = "--debug" in arguments
    code = PipelineError.exit_code
    try:
        code = _command([one for one in arguments if one != "--debug"], debug)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _failed("stopped: what was committed is kept, run again to resume", 1)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return code
        if debug:
            traceback.print_exc()
        return _failed(*_one_line(error))


def _command(arguments: Sequence[str], debug: bool) -> int:
    options, flags = parser().parse_known_args(arguments)
    options.debug = debug
    if flags and options.command not in ("run", "plan") and not getattr(options, "retry", False):
        raise options.parser.unknown(flags[0])
    module, _, name = options.function.partition(":")
    try:
        return getattr(import_module(f"pipeline.commands.{module}"), name)(options, flags)
    except UnknownOption as error:
        raise UnknownOption(error.name, [*options.parser.flags, *error.known]) from error


def _reader_left() -> bool:
    """Whether whoever read standard output is gone, as after `| head`; nothing more is then written to it."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at its end
    return True


def _one_line(error: Exception) -> tuple[str, int]:
    if isinstance(error, PipelineError):
        return str(error), error.exit_code
    if isinstance(error, ValueError) and type(error).__module__.startswith("bark_model."):
        return str(error), UsageError.exit_code  # bark_model words its own errors for users, too
    first = (str(error).strip().splitlines() or [""])[0][:200]
    return f"unexpected {type(error).__name__}: {first}: run with --debug for the traceback", PipelineError.exit_code


def _failed(message: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        print(f"bark-beam: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
