"""A lane says plainly that it did not run, and CI does not accept that."""

import pytest

from tests import lanes


@pytest.fixture
def no_go(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(lanes.shutil, "which", lambda _: None)
    monkeypatch.delenv("CI", raising=False)


def test_without_go_the_lane_says_that_it_did_not_run(no_go):
    with pytest.raises(pytest.skip.Exception, match="the GCS lane did not run: no Go tool chain to build"):
        lanes.go_tool("GCS", "github.com/fsouza/fake-gcs-server", "v1")


def test_in_ci_that_is_a_failure(no_go, monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="the GCS lane did not run: no Go tool chain to build"):
        lanes.go_tool("GCS", "github.com/fsouza/fake-gcs-server", "v1")
