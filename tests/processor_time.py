"""Processor time of tests: a run ends with its sum for each room, and with tests that take long and are on no list.

Each test above LONG seconds in the full tier is in long_tests.toml. A run of many tests ends with those that are not. It
fails nothing, for the time depends on the machine; but add the test with its reason, make it smaller, or mark it `stress`.
Programs that a test starts count once they have ended, and so a browser counts where it is closed; ranks count nowhere.
In the fast tier the clock counts instead, and what took long is to be marked `slow`.
"""

import os
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LONG = 2.0
FAST = 1.0  # of the clock, in the fast tier: twice what such a test takes with a core to itself
MANY = 1000  # tests of a run that is reported: in a shorter one the first test pays for what all import
LIST = Path(__file__).with_name("long_tests.toml")
ROOMS = 12  # named in a report


def listed() -> dict[str, str]:
    """Test, without its parameters -> why it takes long."""
    return {
        f"{file}::{name}": reason
        for file, tests in tomllib.loads(LIST.read_text(encoding="utf-8")).items()
        for name, reason in tests.items()
    }


def seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _measured(phase: str) -> Callable[[pytest.Item], Iterator[None]]:
    @pytest.hookimpl(wrapper=True)
    def measure(item: pytest.Item) -> Iterator[None]:
        before = seconds()
        try:
            return (yield)
        finally:
            item.user_properties.append((phase, seconds() - before))

    return measure


# What sets up for several tests counts with the first of them.
pytest_runtest_setup, pytest_runtest_call, pytest_runtest_teardown = map(_measured, ("setup", "call", "teardown"))


def took(terminalreporter: pytest.TerminalReporter) -> dict[str, dict[str, float]]:
    """Test -> phase -> seconds of processor time."""
    return {
        report.nodeid: {phase: time for phase, time in report.user_properties if isinstance(time, float)}
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
    }


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    times = took(terminalreporter)
    if len(times) < MANY:
        return
    rooms = Counter[str]()
    for name, phases in times.items():
        rooms["/".join(name.partition("::")[0].split("/")[:2])] += sum(phases.values())
    terminalreporter.section(
        f"processor time: {rooms.total():.0f} s of {len(times)} tests, tier {config.getoption('--tier')}"
    )
    terminalreporter.line(", ".join(f"{room} {time:.0f}" for room, time in rooms.most_common(ROOMS)))
    if config.getoption("--tier") == "fast":
        _tell_slow(terminalreporter)
    if config.getoption("--tier") != "full":
        return
    known = listed()
    long = {
        name: phases.get("call", 0.0)
        for name, phases in times.items()
        if phases.get("call", 0.0) > LONG and name.removeprefix("tests/").partition("[")[0] not in known
    }
    if long:
        terminalreporter.section(f"more than {LONG:.0f} s of processor time, and not in {LIST.name}")
        for name, time in sorted(long.items(), key=lambda entry: -entry[1]):
            terminalreporter.line(f"{time:6.1f} {name}")


def _tell_slow(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for report in terminalreporter.getreports("passed") if report.duration > FAST]
    if reports:
        terminalreporter.section(f"more than {FAST:.0f} s in the fast tier: slow")
        for report in sorted(reports, key=lambda report: -report.duration):
            terminalreporter.line(f"{report.duration:6.1f} {report.nodeid}")
