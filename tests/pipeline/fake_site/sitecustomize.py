"""Makes `import bark_model.bark` give the fake of tests/pipeline/fakes.py in every interpreter that starts with this
folder on PYTHONPATH: the launcher's children and Beam's worker processes. With KILL_AT they die at a store operation
as tests/kill_points has it."""

import importlib.abc
import importlib.util
import os
import runpy
import sys
from pathlib import Path

FAKES = Path(__file__).resolve().parent.parent / "fakes.py"


class FakeBarkFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "bark_model.bark":
            return importlib.util.spec_from_file_location(fullname, FAKES)
        return None


sys.meta_path.insert(0, FakeBarkFinder())
if "KILL_AT" in os.environ:
    runpy.run_path(str(FAKES.parent.parent / "kill_points" / "sitecustomize.py"))
