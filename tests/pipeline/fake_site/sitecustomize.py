"""Makes `import bark_model.bark` give the fake of tests/pipeline/fakes.py in every interpreter that starts with this
folder on PYTHONPATH: the launcher's children and Beam's worker processes."""

import importlib.abc
import importlib.util
import sys
from pathlib import Path

FAKES = Path(__file__).resolve().parent.parent / "fakes.py"


class FakeBarkFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "bark_model.bark":
            return importlib.util.spec_from_file_location(fullname, FAKES)
        return None


sys.meta_path.insert(0, FakeBarkFinder())
