"""One row's fields, checked, as a Record; what is wrong with it as a FailedRecord. All formats meet here."""

from collections.abc import Mapping

from pipeline.chunking import LANGUAGES, language_code, speakable
from pipeline.errors import excerpt
from pipeline.records import FailedRecord, Record, line_id
from pipeline.sources.lines import LINE_LIMIT_BYTES

COLUMNS = ("id", "text", "voice", "language", "seed", "document", "index")
"""The fields that are read; a row may have others."""

ID_LIMIT_BYTES = 4096
SEED_LIMIT = 2**32 - 1
INDEX_LIMIT = 2**31 - 1


class RowError(ValueError):
    """One row cannot become a record: `error` is its class name for `failed/*.jsonl`, the message one line."""

    def __init__(self, error: str, message: str, *, stage: str = "read"):
        super().__init__(message)
        self.error, self.stage = error, stage


def failed(source: str, line: int, fault: RowError, record_id: str | None = None) -> FailedRecord:
    """The FailedRecord of a row, found again by `source` (file:line); that is its id too when it has none."""
    return FailedRecord(
        id=line_id(source, line) if record_id is None else record_id,
        source=f"{source}:{line}",
        stage=fault.stage,
        error=fault.error,
        message=str(fault),
    )


def too_long() -> RowError:
    """The fault of a line that was passed over unread."""
    return RowError("LineTooLong", f"line is over {LINE_LIMIT_BYTES} bytes: split it")


def decoded(line: bytes) -> str:
    """A line's text; RowError when it is not UTF-8 or holds a NUL (as UTF-16 does)."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise RowError("BadEncoding", f"byte {error.start + 1} of the line is not UTF-8: save it as UTF-8") from error
    return _plain("line", text)


def record(values: Mapping[str, object], source: str, line: int) -> Record | FailedRecord:
    """The record of a row's values (None is absent), or why there is none.

    `id` and `document` may be whole numbers, as tables often have them: 17 is the id "17".
    """
    record_id = None
    try:
        record_id = _name("id", values.get("id"), empty=True)
        return Record(
            id=line_id(source, line) if record_id is None else record_id,
            text=_text(values.get("text")),
            source=source,
            line=line,
            voice=_name("voice", _string("voice", values.get("voice"))),
            language=_language(values.get("language")),
            seed=_whole("seed", values.get("seed"), SEED_LIMIT),
            document=_name("document", values.get("document")),
            index=_whole("index", values.get("index"), INDEX_LIMIT),
        )
    except RowError as fault:
        return failed(source, line, fault, record_id)


def shown(value: object) -> str:
    """A value for a message, short; what is nested only by its kind."""
    kinds = {dict: "an object", list: "a list"}
    return kinds.get(type(value)) or excerpt(value)


def _plain(name: str, text: str) -> str:
    if "\0" in text:
        raise RowError("BadEncoding", f"{name} holds a NUL at character {text.index(chr(0)) + 1}: save it as UTF-8")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowError(
            "BadEncoding", f"{name} is no Unicode text at character {error.start + 1}: save it as UTF-8"
        ) from error
    return text


def _string(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RowError("BadField", f"{name} is {shown(value)}, must be a string")
    return value


def _text(value: object) -> str:
    text = _string("text", value)
    if text is None:
        raise RowError("BadField", "text is missing: every record needs one")
    if len(_plain("text", text).encode()) > LINE_LIMIT_BYTES:
        raise RowError("TextTooLong", f"text is over {LINE_LIMIT_BYTES} bytes: split it", stage="text")
    if not speakable(text):
        raise RowError("EmptyText", f"text {excerpt(text)} has nothing to speak: no letter, digit or ♪", stage="text")
    return text


def _name(name: str, value: object, *, empty: bool = False) -> str | None:
    """A short string, kept exactly as it is; only an id may be empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = _string(name, value)
    if text is None:
        return None
    if len(_plain(name, text).encode()) > ID_LIMIT_BYTES:
        raise RowError("BadField", f"{name} {excerpt(text)} is over {ID_LIMIT_BYTES} bytes: shorten it")
    if not text and not empty:
        raise RowError("BadField", f"{name} is empty: leave it out or name one")
    return text


def _language(value: object) -> str | None:
    text = _string("language", value)
    if text is None:
        return None
    code = language_code(text)
    if code is None:
        raise RowError("BadField", f"language is {excerpt(text)}, must be one of {' '.join(LANGUAGES)}")
    return code


def _whole(name: str, value: object, limit: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        raise RowError("BadField", f"{name} is {shown(value)}, must be a whole number from 0 to {limit}")
    return value
