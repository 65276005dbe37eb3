"""Tests that need a tool which no Python package brings."""

import os
from typing import NoReturn

import pytest


def did_not_run(message: str) -> NoReturn:
    """Says plainly that tests did not run, which CI does not accept."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
