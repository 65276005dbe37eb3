"""Lines of a byte stream, each in bounded memory."""

from collections.abc import Iterator
from typing import BinaryIO

LINE_LIMIT_BYTES = 1 << 20
"""A longer line (about 20 hours of speech) fails and is passed over unread. Texts of other formats have it too."""

_BOM = b"\xef\xbb\xbf"


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(line number from 1, the line without its end) of every line; None instead of one over LINE_LIMIT_BYTES.

    LF and CRLF end a line, a lone CR does not. A UTF-8 byte order mark at the start is dropped.
    """
    number = 0
    while line := stream.readline(LINE_LIMIT_BYTES + 2):
        number += 1
        ended = line.endswith(b"\n")
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) <= LINE_LIMIT_BYTES:
            yield number, line
            continue
        while not ended and (rest := stream.readline(LINE_LIMIT_BYTES)):
            ended = rest.endswith(b"\n")
        yield number, None
