"""Back in a shared studio, in three engines: it shows what was typed, and after log-out nothing of the learner."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.engines import ENGINES, Engine
from browser.engines.test_engines import opened
from browser.learn.test_journey import TOPIC
from clearhead import sandbox
from clearhead.studio.accounts.users import open_users
from clearhead.studio.web.settings import Settings
from studio import sample

WORD = "a long password of the lighthouse"
pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}"),
]


@pytest.fixture(params=[pytest.param(kind, id=kind.name) for kind in ENGINES])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A window on a shared studio, in which Ada is logged in."""
    with opened(request, tmp_path, sample.library(), Settings(data=tmp_path, accounts=True)) as window:
        with open_users(tmp_path, None) as users:
            window.open(f"/join/{users.accounts.add('Ada')}")
        for field in ("#password", "#again"):
            window.type(field, WORD)
        window.leave("main button")
        yield window


def test_back_shows_what_was_typed_and_nothing_after_log_out(engine: Engine) -> None:
    engine.open(f"{TOPIC}/try")
    engine.type("[name=prediction]", "forty-two")
    engine.open("/progress")
    engine.again(engine.back)
    assert engine.value("[name=prediction]") == "forty-two"
    engine.leave("form[data-forget-all] button")
    engine.sees("Password", "main")
    engine.back()
    engine.wait("() => location.pathname === '/login'")
    assert not engine.has("Ada")
