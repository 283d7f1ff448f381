"""What every room's tests share: the tiers, and reproducible examples in CI. A room's own needs are in its own folder."""

import os

from hypothesis import settings

from tiers import pytest_addoption, pytest_collection_modifyitems, pytest_configure  # noqa: F401

# The same examples on every run of CI, so that what it says depends on the change alone; new ones everywhere else.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
