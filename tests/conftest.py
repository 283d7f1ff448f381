"""What every room's tests share: the tiers, and reproducible examples in CI. A room's own needs are in its own folder."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings

from tiers import pytest_addoption, pytest_collection_modifyitems, pytest_configure  # noqa: F401

# No test reads or writes what the person who runs it has kept: measured costs, a learner's answers.
_home = tempfile.mkdtemp(prefix="tests-of-clearhead-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
_cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", f"{_cache}/ms-playwright")
os.environ.setdefault("HF_HOME", f"{_cache}/huggingface")
os.environ |= {"XDG_CACHE_HOME": f"{_home}/cache", "XDG_DATA_HOME": f"{_home}/data", "CLEARHEAD_TUNE": "0"}

# The same examples on every run of CI, so that what it says depends on the change alone; new ones everywhere else.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
