"""A file of tests that cannot be imported is an error, also where its doctests are collected.

Doctests come first: with `--doctest-ignore-import-errors` they skip such a file, and leave it half imported, in which
pytest then finds no test.
"""

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip into an error."""
    report = yield
    if report.skipped and collector.path.name.startswith("test_") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if "unable to import module" in reason:
            report.outcome, report.longrepr = "failed", f"{reason}. Run it without --doctest-modules to see the error."
    return report
