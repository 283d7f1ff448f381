"""Names of learners: any script, one account a name however it is spelled, nothing that cannot be seen."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from typer.testing import CliRunner

from clearhead.cli import app as cli
from clearhead.errors import OptionError
from clearhead.studio.accounts import names
from clearhead.studio.accounts.accounts import Accounts
from clearhead.studio.learner.database import Database
from studio.accounts import test_accounts
from studio.accounts.test_accounts import WORD, Learner, accounts, learner
from studio.conftest import ON_BOTH

shared = test_accounts.shared
GOOD = (
    "Björn", "José", "李雷", "Анна-Мария", "Ελένη", "महेश", "สมชาย", "محمد", "O'Brien", "D’Angelo", "山田 太郎", "Đặng Văn Ánh",
    "Ẹ̀bùn", "ada_99", "a.b@example.org", "x", "_x_", "Ada Jr.", "Núria·P", "שָׁלוֹם",
)  # fmt: skip
BAD = {
    "nothing": "", "a space": " ", "a space first": " ada", "a space last": "ada ", "two spaces": "a  b",
    "a line break": "a\nb", "a null": "a\0b", "an escape": "a\x1b[31mb", "a no-break space": "a\u00a0b",
    "an ideographic space": "a\u3000b", "an em space": "a\u2003b", "an ogham space": "a\u1680b",
    "right to left": "a\u202eb", "an isolate": "a\u2066b", "zero width": "a\u200bb", "a joiner": "a\u200db",
    "a byte order mark": "\ufeffada", "a soft hyphen": "a\u00adb", "a filler": "a\u3164b", "a half filler": "a\uffa0b",
    "a variation": "a\ufe0fb", "a grapheme joiner": "a\u034fb", "braille blank": "a\u2800b", "a tag": "a\U000e0061b",
    "a surrogate": "a\udcffb", "private use": "a\ue000b", "unassigned": "a\u0378b", "a bracket": "<b>", "a slash": "a/b",
    "an emoji": "a😀", "a comma": "a,b", "a mark first": "\u0301a", "too many marks": "a" + "\u0335" * 5 + "b",
    "too long": "ä" * 61, "a dash last": "ada-", "a line separator": "a\u2028b", "a full stop first": ".ada",
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_names_of_people_are_names(name: str) -> None:
    assert names.checked(name) == unicodedata.normalize("NFC", name)
    assert names.checked(unicodedata.normalize("NFD", name)) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_what_cannot_be_seen_or_told_apart_is_no_name(name: str) -> None:
    with pytest.raises(OptionError) as refused:
        names.checked(name)
    assert str(refused.value).isprintable()


@pytest.mark.slow
@given(st.text(max_size=70))
def test_whatever_is_typed_is_a_name_or_refused_with_a_reason(name: str) -> None:
    try:
        kept = names.checked(name)
    except OptionError:
        return
    assert kept.isprintable()
    assert names.checked(kept) == kept
    assert names.key(kept) == names.key(unicodedata.normalize("NFD", kept)) == names.key(kept.upper().lower())


@pytest.mark.slow
@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_from_the_invitation_to_logging_in_again(shared: TestClient) -> None:
    for name in ("José", "李雷"):
        first = learner(shared, name)
        assert name in first.get("/settings")
        assert name in Learner(shared).log_in(f"{unicodedata.normalize('NFD', name).upper()} ")
        with pytest.raises(OptionError, match=f"{name} already has an account"):
            accounts(shared).add(unicodedata.normalize("NFD", name).upper())
    accounts(shared).remove("JOSÉ")
    Learner(shared).log_in("José", status=401)


@pytest.mark.slow
def test_waits_hold_for_every_spelling(shared: TestClient) -> None:
    learner(shared, "José")
    visitor = Learner(shared)
    shared.app.state.throttle.clock = lambda: 100.0  # type: ignore[attr-defined]
    for spelling in ("José", "JOSÉ", "jose\u0301", "José ", "josé"):
        visitor.log_in(spelling, "wrong password", 401)
    visitor.log_in("JOSE\u0301", "wrong password", 429)


@pytest.mark.slow
def test_a_password_is_the_same_however_its_accents_are_typed(shared: TestClient) -> None:
    visitor = Learner(shared)
    word = "clé très secrète"
    visitor.post(f"/join/{accounts(shared).add('ada')}", password=word, again=word)
    assert "ada" in Learner(shared).log_in("ada", unicodedata.normalize("NFD", word))


@pytest.mark.slow
def test_accounts_that_differ_in_case_from_before_keep_their_own(tmp_path: Path) -> None:
    opened = Database(tmp_path)
    here = Accounts(opened, "secret")
    here.add("ada")
    with opened.writing() as connection:
        connection.exec_driver_sql("INSERT INTO learners (name, password) VALUES ('Ada', '')")
    for name in ("ada", "Ada"):
        account = here.invited(here.reset(name))
        assert account is not None
        assert account.name == name
        here.join(account, WORD + name)
        found = here.check(name, WORD + name)
        assert found is not None
        assert found.name == name
    assert here.check("ADA", WORD + "ada") is None
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("database", ON_BOTH, indirect=True)
def test_two_spellings_invited_at_once_are_one_account(tmp_path: Path, database: str | None) -> None:
    opened = Database(tmp_path, database)
    here = Accounts(opened, "secret")

    def add(name: str) -> bool:
        try:
            here.add(name)
        except OptionError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(add, ["josé", "JOSÉ", "José", "jose\u0301"] * 4))
    assert sum(won) == len(here.all()) == 1
    opened.close()


@pytest.mark.slow
def test_the_commands_take_any_spelling(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli, ["studio", "user", *arguments, "--data", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done.output

    assert "Send 李雷 this link" in run("add", "李雷")
    assert "Send José this link" in run("add", "Jose\u0301")
    assert "Send José this link" in run("reset", "JOSÉ")
    assert run("list") == "李雷  invited\nJosé  invited\n"
    assert run("remove", "josé") == "José is removed; the answers stay\n"
