"""A text file of very many lines for a store, which takes whole files only: collected on the local disk first."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.store import Store


def write_lines(destination: Store, path: str, lines: Iterable[str]) -> None:
    """Creates a UTF-8 file of the lines, each ended by a newline."""
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "lines"
        with open(collected, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        destination.create(path, collected)
