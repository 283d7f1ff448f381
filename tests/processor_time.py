"""Tests that take long: each above LONG seconds of processor time in the full tier is listed in long_tests.toml.

A run ends with those that are not. It fails nothing, for the time depends on the machine; but add the test with its
reason, make it smaller, or mark it `stress`. Programs that a test starts count once they have ended.
"""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

LONG = 4.0
MANY = 1000  # tests of a run that is reported: in a shorter one the first test pays for what all import
LIST = Path(__file__).with_name("long_tests.toml")
_NAME = "processor_seconds"


def listed() -> dict[str, str]:
    """Test, without its parameters -> why it takes long."""
    return {
        f"{file}::{name}": reason
        for file, tests in tomllib.loads(LIST.read_text(encoding="utf-8")).items()
        for name, reason in tests.items()
    }


def _seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Measure the test itself: a fixture's time belongs to all who use it."""
    before = _seconds()
    try:
        return (yield)
    finally:
        item.user_properties.append((_NAME, _seconds() - before))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--tier") == "stress":
        return
    took = {
        report.nodeid: dict(report.user_properties).get(_NAME, 0.0)
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    }
    if len(took) < MANY:
        return
    known = listed()
    long = {
        name: seconds
        for name, seconds in took.items()
        if seconds > LONG and name.removeprefix("tests/").partition("[")[0] not in known
    }
    if long:
        terminalreporter.section(f"more than {LONG:.0f} s of processor time, and not in {LIST.name}")
        for name, seconds in sorted(long.items(), key=lambda entry: -entry[1]):
            terminalreporter.line(f"{seconds:6.1f} {name}")
