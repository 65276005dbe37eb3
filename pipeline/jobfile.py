"""Reads a job file and its flags into a `Job`: strictly, so that a mistyped key never runs on a default."""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from bark_model.settings import SettingError
from pipeline.errors import UsageError, excerpt, nearest
from pipeline.job import Job

JOB_FILE = "_run/job.yaml"
"""The merged job as it is kept with a run."""
MAX_BYTES = 2**20
TEXTS = tuple[str, ...]
"""The type of a key that takes one text or a list of them."""


class _StrictLoader(yaml.SafeLoader):
    """Refuses duplicate keys (YAML keeps the last silently) and aliases (a small file could unfold to gigabytes)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are refused", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"the key {excerpt(key)} is no text", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UsageError(f"{name}{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{name}: {str(error).splitlines()[0][:120]}") from error


def read_mapping(path: str) -> dict[str, Any]:
    """The YAML mapping of a job file, its keys still unchecked."""
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{path}: there is no such job file")
    data = file.read_bytes()[: MAX_BYTES + 1] if file.stat().st_size <= MAX_BYTES else b""
    if not data:
        raise UsageError(f"{path} has {file.stat().st_size} bytes, a job file has 1 to {MAX_BYTES}")
    try:
        mapping = _parse(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8") from error
    if not isinstance(mapping, dict):
        raise UsageError(f"{path} holds {excerpt(mapping)}, must hold keys such as `input: texts/*.txt`")
    return mapping


def split_flags(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """`--key value`, `--key=value` and a bare `--key` (None) as pairs, in order."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("--") or argument == "--":
            raise UsageError(f"{excerpt(argument)} stands where a flag was expected: write --key value")
        key, equals, value = argument[2:].partition("=")
        if equals:
            yield key, value
        elif position < len(arguments) and not arguments[position].startswith("--"):
            yield key, arguments[position]
            position += 1
        else:
            yield key, None


def _keys(cls: Any) -> dict[str, dataclasses.Field]:
    """A dataclass's fields by their YAML key: `from_` is written `from`."""
    return {field.name.rstrip("_"): field for field in dataclasses.fields(cls)}


def known_keys(cls: Any = Job, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of the job file that takes a value, with its type."""
    hints, found = get_type_hints(cls), {}
    for key, field in _keys(cls).items():
        kind = hints[field.name]
        found |= known_keys(kind, f"{prefix}{key}.") if dataclasses.is_dataclass(kind) else {prefix + key: kind}
    return found


def override(mapping: Mapping[str, Any], key: str, raws: Sequence[str | None]) -> dict[str, Any]:
    """The mapping with one dotted key set from its flags' texts, read as YAML unless the key holds text. More than
    one flag of a key is an error, unless it takes several texts."""
    kind, texts = known_keys()[key], [raw for raw in raws if raw is not None]
    if len(texts) < len(raws):
        raise UsageError(f"--{key} has no value: write --{key} VALUE")
    if kind == TEXTS:
        value = texts
    elif len(texts) > 1:
        raise UsageError(f"--{key} is given {len(texts)} times, takes one value")
    else:
        value = texts[0] if kind in (str, str | None) else _parse(texts[0], f"--{key}")
    *parents, last = key.split(".")
    result = dict(mapping)
    level = result
    for parent in parents:
        inner = {} if level.get(parent) is None else level[parent]
        if not isinstance(inner, dict):
            raise UsageError(f"{parent} is {excerpt(inner)}, must hold keys such as {last}")
        level[parent] = dict(inner)
        level = level[parent]
    level[last] = value
    return result


def _convert(name: str, value: Any, kind: Any) -> Any:
    """The value as `kind` (a class, Literal or Optional), or a one-line error that says what was expected."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [option for option in get_args(kind) if option is not type(None)]
        return None if value is None else _convert(name, value, inner[0])
    if get_origin(kind) is Literal:
        if value in get_args(kind) and isinstance(value, str):
            return value
        choices = get_args(kind)
        hint = nearest(str(value), choices)
        raise UsageError(f"{name} is {excerpt(value)}, must be one of {', '.join(choices)}{hint}")
    if kind == TEXTS:
        return tuple(_convert(name, item, str) for item in (value if isinstance(value, list) else [value]))
    if kind is bool:
        if isinstance(value, bool):
            return value
    elif kind is str:
        if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
            return str(value)
    elif kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif kind is float:
        number = _number(value)
        if number is not None:
            return number
    wanted = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}[kind]
    raise UsageError(f"{name} is {excerpt(value)}, must be {wanted}")


def _number(value: Any) -> float | None:
    """A finite number; YAML 1.1 reads `1e-3` as text, so text is tried too."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def build(mapping: Mapping[str, Any], cls: Any = Job, prefix: str = "") -> Any:
    """The dataclass from a mapping of its YAML keys; an unknown key is an error with the nearest name."""
    hints, fields, values = get_type_hints(cls), _keys(cls), {}
    for key, value in mapping.items():
        if key not in fields:
            raise UsageError(f"unknown key {excerpt(prefix + key)}{nearest(prefix + key, [*known_keys(), *fields])}")
        field = fields[key]
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise UsageError(f"{prefix}{key} is {excerpt(value)}, must hold keys such as {', '.join(_keys(kind))}")
            values[field.name] = build(value, kind, f"{prefix}{key}.")
        else:
            values[field.name] = _convert(prefix + key, value, kind)
    missing = [key for key, field in fields.items() if field.name not in values and _required(field)]
    if missing:
        raise UsageError(f"the job has no {missing[0]}: add `{prefix}{missing[0]}: ...` or --{prefix}{missing[0]}")
    try:
        return cls(**values)
    except SettingError as error:
        raise UsageError(f"sampling.{error}") from error


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def load(path: str, flags: Sequence[str] = ()) -> tuple[Job, list[str]]:
    """The job of a file with its flags applied, and the Beam options that stand beside it as Beam's own flags.

    Raises UsageError for whatever neither the job nor Beam knows.
    """
    return _with_flags(read_mapping(path), flags)


def dump_stored(job: Job) -> bytes:
    """The merged job file as it is kept with the run. Its output is where it lies; Beam options may hold secrets."""
    mapping = to_mapping(job)
    del mapping["output"]
    return yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True).encode()


def load_stored(data: bytes, output: str, flags: Sequence[str] = ()) -> tuple[Job, list[str]]:
    """The job kept with a run, whose output is where it was found, with flags applied."""
    mapping = _parse(data.decode("utf-8", "replace"), f"{output}: the stored job")
    if not isinstance(mapping, dict):
        raise UsageError(f"{output}: the stored job holds {excerpt(mapping)}: run the job file again instead")
    return _with_flags(mapping | {"output": output}, flags)


def _with_flags(mapping: dict[str, Any], flags: Sequence[str]) -> tuple[Job, list[str]]:
    ours = known_keys()
    beam: dict[str, Any] = {key: mapping.pop(key) for key in list(mapping) if key not in _keys(Job)}
    given: dict[str, list[str | None]] = {}
    for key, raw in split_flags(flags):
        given.setdefault(key, []).append(raw)
    for key, raws in given.items():
        if key in ours:
            mapping = override(mapping, key, raws)
        else:
            beam[key] = [True if raw is None else raw for raw in raws]
    if beam:
        from pipeline.beam_options import beam_flags  # imports Beam: seconds, so only when such options are there

        return build(mapping), beam_flags(beam, ours)
    return build(mapping), []


def to_mapping(value: Any) -> dict[str, Any]:
    """A dataclass as the nested mapping of its YAML keys: what `build` reads back."""
    inner = {key: getattr(value, field.name) for key, field in _keys(type(value)).items()}
    return {
        key: to_mapping(one) if dataclasses.is_dataclass(one) else list(one) if isinstance(one, tuple) else one
        for key, one in inner.items()
    }
