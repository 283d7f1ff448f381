"""A small class on a real server: nothing is lost or counted twice, whatever is killed in the middle."""

import importlib.util

import pytest

pytest.importorskip("psycopg", reason="a class works on PostgreSQL: pip install 'clearhead[postgresql]'")
from bench import classroom

from clearhead import sandbox
from studio import postgresql

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be confined here: {sandbox.explain()}"),
    pytest.mark.skipif(
        postgresql.programs() is None or importlib.util.find_spec("psycopg") is None,
        reason="no PostgreSQL here: install Debian's postgresql package and clearhead[postgresql]",
    ),
]
SMALL = [
    "--learners",
    "10",
    "--seconds",
    "8",
    "--login",
    "2",
    "--thinking",
    "0",
    "--workers",
    "2",
    "--clients",
    "2",
    "--proofs",
    "40",  # no question is asked before its answer is computed
]


@pytest.mark.parametrize("what", ["", "--kill-worker", "--kill-sandbox", "--kill-database", "--full-disk"])
def test_a_class_loses_nothing(what: str) -> None:
    report = classroom.run(classroom.parsed([*SMALL, *what.split()]))
    assert report["answered"] > 0
    assert (report["lost"], report["doubled"], report["misjudged"]) == (0, 0, 0), report
    assert all(min(each["hit"].values()) for each in report["disturbed"].values()), report
    assert report["errors"]["hostile requests"] > 0
