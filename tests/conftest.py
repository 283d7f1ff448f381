"""What every room's tests share: the tiers, times, reproducible examples in CI, and data folders of the run's own."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import tiers
import workers
from processor_time import (  # noqa: F401
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtest_teardown,
    pytest_terminal_summary,
)
from tiers import (  # noqa: F401
    pytest_collection_modifyitems,
    pytest_generate_tests,
    pytest_ignore_collect,
    pytest_make_collect_report,
)
from workers import pytest_runtestloop  # noqa: F401


def pytest_addoption(parser: pytest.Parser) -> None:
    tiers.pytest_addoption(parser)
    workers.pytest_addoption(parser)
    parser.addoption(
        "--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where tests of tensors compute (devices.py)"
    )


def pytest_configure(config: pytest.Config) -> None:
    tiers.pytest_configure(config)
    workers.pytest_configure(config)
    os.environ["CLEARHEAD_TEST_DEVICE"] = config.getoption("--device")
    if config.getoption("--device") == "cpu":  # Triton's interpreter; Triton reads this when it is imported
        os.environ.setdefault("TRITON_INTERPRET", "1")


# No test depends on how busy the machine is: there is no deadline, and none on the drawing of examples. CI has the same
# examples on every run, so that its result depends on the change alone; everywhere else there are new ones.
UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("local", **UNTIMED)
settings.register_profile("ci", derandomize=True, **UNTIMED)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# No test reads or writes the user's own data, cache (measured costs of kernels) or configuration. Workers, which
# inherit the folders, leave them in place when they end.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", f"{_CACHE}/ms-playwright")
    os.environ.setdefault("HF_HOME", f"{_CACHE}/huggingface")
    os.environ["CLEARHEAD_TUNE"] = "0"
    os.environ["CLEARHEAD_MODELS"] = "minimal"  # no test fetches the chat model; some run it where it is
    os.environ["CLEARHEAD_TEST_MODELS"] = f"{_CACHE}/clearhead/models"
    _FOLDER, _PROCESS = tempfile.mkdtemp(prefix="clearhead-tests-"), os.getpid()
    atexit.register(lambda: os.getpid() == _PROCESS and shutil.rmtree(_FOLDER, ignore_errors=True))
    for name in ("DATA", "CACHE", "CONFIG", "STATE"):
        os.environ[f"XDG_{name}_HOME"] = str(Path(_FOLDER) / name.lower())
