"""Log-in is delayed for those who guess, before a password is hashed, and never locked for an account's owner."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.studio.accounts.accounts import Accounts
from clearhead.studio.accounts.sessions import Sessions
from clearhead.studio.accounts.throttle import LIMITS, Key, Limit, Throttle
from clearhead.studio.app.application import create
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.tables import learners, sessions, waits
from clearhead.studio.web.settings import Settings
from studio.accounts.test_accounts import WORD, Learner, accounts, learner
from studio.conftest import ON_BOTH
from studio.sample import library

ADA, HOUSE = Key("name", "ada"), Key("address", "192.0.2.1")
FREE, LONGEST = LIMITS["name"].free, int(LIMITS["name"].longest)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    app = create(Settings(data=tmp_path, host="0.0.0.0", url="http://studio.example"), library())
    app.state.throttle.clock = lambda: 100.0
    with TestClient(app, base_url="http://studio.example") as client:
        yield client


@pytest.fixture
def opened(tmp_path: Path, database: str | None) -> Iterator[Database]:
    there = Database(tmp_path, database)
    yield there
    there.close()


@pytest.mark.slow
@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_delays_double_have_an_end_and_are_cleared(opened: Database) -> None:
    throttle = Throttle(opened, "secret")
    assert [throttle.admit(ADA, HOUSE, now=100) for _ in range(FREE)] == [0] * FREE
    assert throttle.admit(ADA, HOUSE, now=100) == 2
    assert throttle.admit(ADA, HOUSE, now=102) == 0
    assert throttle.admit(ADA, HOUSE, now=102) == 4
    assert Throttle(opened, "secret").admit(ADA, now=103) == 3, "another process over the same database"
    assert throttle.admit(Key("name", "bob"), HOUSE, now=102) == 0, "others behind the address go on"
    now = 102.0
    for _ in range(20):
        now += LONGEST
        assert throttle.admit(ADA, now=now) == 0
    assert throttle.admit(ADA, now=now) == throttle.admit(ADA, now=100) == LONGEST, "a clock set back adds nothing"
    throttle.passed(ADA, HOUSE)
    assert throttle.admit(ADA, HOUSE, now=now) == 0
    with opened.autocommit() as connection:
        kept = str(connection.execute(sa.select(waits)).all())
    assert "ada" not in kept


@pytest.mark.slow
@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_of_parallel_guesses_no_more_are_admitted_than_are_free(opened: Database) -> None:
    throttle = Throttle(opened, "secret")
    with ThreadPoolExecutor(20) as pool:
        waited = list(pool.map(lambda _: throttle.admit(ADA, HOUSE, now=100), range(60)))
    assert waited.count(0) == FREE


@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_a_class_behind_one_address_is_not_slowed_by_its_own_success(
    opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "address", Limit(7, 1.0, 60.0))  # type: ignore[index]
    throttle = Throttle(opened, "secret")
    for number in range(12):
        assert throttle.admit(Key("name", f"learner {number}"), HOUSE, now=100) == 0
        throttle.passed(Key("name", f"learner {number}"), HOUSE)


def test_one_address_that_tries_every_name_is_slowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "address", Limit(7, 1.0, 60.0))  # type: ignore[index]
    opened = Database(tmp_path)
    throttle = Throttle(opened, "secret")
    waited = [throttle.admit(Key("name", f"learner {number}"), HOUSE, now=100) for number in range(9)]
    assert waited == [0] * 7 + [1, 1]
    opened.close()


def test_counts_do_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Database(tmp_path)
    throttle = Throttle(opened, "secret")
    monkeypatch.setattr(Throttle, "MOST", 20)
    for _ in range(FREE):
        throttle.admit(ADA, now=200)
    for number in range(60):
        throttle.admit(Key("name", f"learner {number}"), now=201 + number)
    with opened.autocommit() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(waits)).scalar_one() <= 22
    assert throttle.admit(ADA, now=200) == 2
    throttle.admit(Key("name", "somebody"), now=200 + 25 * 3600)
    assert throttle.admit(ADA, now=200 + 25 * 3600) == 0, "after a day it is forgotten"
    opened.close()


@pytest.mark.slow
def test_wrong_names_and_wrong_passwords_look_alike_and_wait(shared: TestClient) -> None:
    learner(shared, "ada")
    accounts(shared).add("not yet here")
    guess = Learner(shared)
    for name, password in (("nobody", WORD), ("not yet here", WORD), *[("ada", WORD[:-1])] * FREE):
        assert "is wrong" in guess.log_in(name, password, 401)
    assert "Too many attempts" in guess.log_in("ada", WORD, 429)
    again = create(shared.app.state.context.settings, library())  # type: ignore[attr-defined]
    again.state.throttle.clock = lambda: 100.0
    with TestClient(again, base_url="http://studio.example") as restarted:
        assert "Too many attempts" in Learner(restarted).log_in("ada", WORD, 429), "a restart gives no new tries"


@pytest.mark.slow
def test_a_guess_that_waits_hashes_nothing(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    learner(shared, "ada")
    guess = Learner(shared)
    hashed: list[str] = []
    monkeypatch.setattr(accounts(shared), "check", lambda name, _: hashed.append(name))
    token = guess.token()
    form = {"csrf": token, "name": "ada", "password": "x" * 12}
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda _: guess.client.post("/login", data=form, follow_redirects=False), range(60)))
    assert len(hashed) == FREE


@pytest.mark.slow
def test_strangers_who_guess_do_not_lock_the_owner_out(shared: TestClient) -> None:
    """In one room, behind one address: ada's own browser has logged in before and has a limit of its own."""
    ada, guess = learner(shared, "ada"), Learner(shared)
    for _ in range(FREE):
        guess.log_in("ada", "x" * 12, 401)
    guess.log_in("ada", WORD, 429)
    ada.post("/logout")
    ada.log_in("ada")
    guess.log_in("ada", WORD, 429)
    guess.client.cookies.set("clearhead-browser", "forged", domain="studio.example")
    guess.log_in("ada", WORD, 429)


@pytest.mark.slow
def test_a_browser_known_to_one_account_is_a_stranger_to_another(shared: TestClient) -> None:
    learner(shared, "ada")
    bob = learner(shared, "bob")
    for _ in range(FREE):
        bob.log_in("ada", "x" * 12, 401)
    bob.log_in("ada", WORD, 429)


@pytest.mark.slow
def test_a_session_ends_with_logging_out_wherever_its_cookie_is_kept(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    copied = dict(ada.client.cookies)
    with TestClient(shared.app, base_url="http://studio.example", cookies=copied) as thief:
        assert thief.get("/progress").status_code == 200
        ada.post("/logout")
        assert thief.get("/progress").status_code == 401


@pytest.mark.slow
def test_logging_in_again_ends_the_session_that_the_browser_had(shared: TestClient) -> None:
    """On a machine of a class bob logs in where ada did not log out: nobody could end her session there any more."""
    browser = learner(shared, "ada")
    learner(shared, "bob")
    copied = dict(browser.client.cookies)
    browser.log_in("bob")
    with TestClient(shared.app, base_url="http://studio.example", cookies=copied) as thief:
        assert thief.get("/progress").status_code == 401
    assert browser.client.get("/progress").status_code == 200


@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_no_session_outlives_its_password_where_the_studio_is_killed(opened: Database) -> None:
    """Nothing but the change itself runs: what a route would do next is not reached."""
    people, open_sessions = Accounts(opened, "secret"), Sessions(opened)
    account = people.invited(people.add("ada"))
    assert account
    first = people.join(account, WORD)
    assert first
    tokens = [open_sessions.open(first) or "" for _ in range(3)]
    assert all(open_sessions.find(token) for token in tokens)
    assert people.check("ada", WORD)
    assert all(open_sessions.find(token) for token in tokens), "a log-in elsewhere ends none"
    assert people.join(first, "new " + WORD)
    assert not any(open_sessions.find(token) for token in tokens)
    people.remove("ada")
    with opened.autocommit() as connection:
        assert connection.execute(sa.select(sessions)).all() == []


@pytest.mark.slow
def test_no_session_can_be_made_from_what_the_database_holds(shared: TestClient) -> None:
    learner(shared, "ada")
    with shared.app.state.context.store.database.autocommit() as connection:  # type: ignore[attr-defined]
        (row,) = connection.execute(sa.select(sessions)).all()
    for forged in (row.key, "", "x", "é"):
        with TestClient(shared.app, base_url="http://studio.example") as thief:
            assert thief.get("/progress", headers={"cookie": f"clearhead-session={forged}".encode()}).status_code == 401


@pytest.mark.slow
def test_the_password_is_changed_in_settings_and_ends_every_other_session(shared: TestClient) -> None:
    ada, elsewhere = learner(shared, "ada"), Learner(shared)
    elsewhere.log_in("ada")
    assert "/settings/password" in ada.get("/settings")
    fields = {"current": WORD, "password": "another long one", "again": "another long one"}
    assert "is wrong" in ada.post("/settings/password", 422, **fields | {"current": WORD[:-1]})
    assert "not the same" in ada.post("/settings/password", 422, **fields | {"again": "another long two"})
    assert "too short" in ada.post("/settings/password", 422, **fields | {"password": "x", "again": "x"})
    assert ada.client.get("/progress").status_code == elsewhere.client.get("/progress").status_code == 200
    ada.post("/settings/password", **fields)
    assert ada.client.get("/progress").status_code == 200
    assert elsewhere.client.get("/progress").status_code == 401
    Learner(shared).log_in("ada", WORD, 401)
    Learner(shared).log_in("ada", "another long one")


@pytest.mark.slow
def test_the_current_password_cannot_be_guessed_in_settings(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    fields = {"password": "another long one", "again": "another long one"}
    for _ in range(FREE):
        ada.post("/settings/password", 422, current="x" * 12, **fields)
    assert "Too many attempts" in ada.post("/settings/password", 429, current=WORD, **fields)


@pytest.mark.slow
def test_a_hash_made_with_other_parameters_is_renewed_at_log_in(shared: TestClient) -> None:
    ada = learner(shared, "ada")
    old = PasswordHasher(time_cost=1, memory_cost=65536, parallelism=4).hash(WORD)
    with shared.app.state.context.store.database.writing() as connection:  # type: ignore[attr-defined]
        connection.execute(sa.update(learners).values(password=old))
    ada.log_in("ada")
    (account,) = accounts(shared).all()
    assert re.search(r"^\$argon2id\$v=19\$m=19456,t=2,p=1\$", account.password)
    Learner(shared).log_in("ada")


@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_a_password_that_changed_meanwhile_is_neither_replaced_nor_logged_in_with(opened: Database) -> None:
    """What a request has read of an account may be old by the time its password is hashed."""
    people, open_sessions = Accounts(opened, "secret"), Sessions(opened)
    account = people.invited(people.add("ada"))
    assert account
    first = people.join(account, WORD)
    assert first
    assert people.join(account, "another " + WORD) is None, "the second of two forms with one invitation"
    changed = people.join(first, "new " + WORD)
    assert changed
    assert open_sessions.open(first) is None, "a log-in with the old password that ends after the change"
    assert open_sessions.open(changed)
    with opened.writing() as connection:  # hashed as the library did before, and changed while it is checked
        old = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1).hash(WORD)
        connection.execute(sa.update(learners).values(password=old))
    verify = people._hasher.verify
    people._hasher = cast(
        "PasswordHasher",
        SimpleNamespace(
            verify=lambda known, typed: verify(known, typed) and people.remove("ada"),
            check_needs_rehash=people._hasher.check_needs_rehash,
            hash=people._hasher.hash,
        ),
    )
    assert people.check("ada", WORD) is None
    assert people.all()[0].state == "removed"
