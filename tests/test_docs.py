"""The table of docs/reliability.md names tests that exist, and every row of the catalogue."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TABLE = TESTS.parent / "docs" / "reliability.md"
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", TABLE.read_text())))
LATER = {10}
"""Rows that nothing of the pipeline can meet yet."""


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_named_in_the_table_exists(file: str, name: str):
    assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), f"{file} has no {name}"


def test_every_row_of_the_catalogue_names_a_test():
    rows = {int(row[0]): row[1] for row in re.findall(r"^\| (\d+) \|(.*)\|$", TABLE.read_text(), re.MULTILINE)}
    assert sorted(rows) == list(range(1, 29))
    assert {number for number, row in rows.items() if "::test_" not in row} == LATER
