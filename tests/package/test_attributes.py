"""Rooms are attributes of the package, and starting a command imports only what it needs."""

import json
import subprocess
import sys

import pytest

import clearhead
import scripts
from fresh import answer


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("room", clearhead._ROOMS)
def test_a_room_is_an_attribute_without_an_import_of_its_own(room):
    assert answer(f"import clearhead; print(clearhead.{room}.__name__)") == f"clearhead.{room}"


@pytest.mark.slow
def test_a_module_of_views_is_an_attribute_too():
    code = "import clearhead; print(*[getattr(clearhead.views, name).__name__ for name in clearhead.views.__all__])"
    assert len(answer(code).split()) == len(clearhead.views.__all__)
    assert answer("import clearhead; print(clearhead.views.page.html.page.__name__)") == "page"


def test_star_and_dir_need_no_extra():
    assert not set(clearhead._ROOMS) & set(clearhead.__all__)
    assert not {"course", "studio"} & set(dir(clearhead))
    with pytest.raises(AttributeError, match="plot"):
        clearhead.views.plots  # noqa: B018


@pytest.mark.slow
def test_help_imports_no_room_and_nothing_heavy():
    code = "import sys\nfrom clearhead import cli\ntry: cli.app(['--help'])\nfinally: print(','.join(sys.modules))"
    loaded = set(python(code).splitlines()[-1].split(","))
    rooms = {f"clearhead.{room}" for room in clearhead._ROOMS}
    assert loaded & (rooms | {"torch", "numpy", "pydantic", "clearhead.scratch", "clearhead.console"}) == set()


@pytest.mark.slow
@pytest.mark.parametrize(("item", "status"), [(None, 0), ("no-such-item", 2)])
def test_check_prints_json(tmp_path, item, status):
    from typer.testing import CliRunner

    from clearhead import cli
    from clearhead.course.pack.scaffold import new_pack

    pack = new_pack(tmp_path / "good")
    options = ["--json", "--receipts", str(tmp_path / "receipts"), *(["--item", item] if item else [])]
    done = CliRunner().invoke(cli.app, ["check", str(pack), *options])
    assert done.exit_code == status
    if item is None:
        data = json.loads(done.stdout)
        assert data["format"] == "clearhead.check/1"
        assert data["wrong"] == 0
        assert [entry["proved"] for entry in data["packs"][0]["items"]] == [True]


@pytest.mark.slow
def test_check_says_what_is_wrong_in_json(tmp_path):
    from typer.testing import CliRunner

    from clearhead import cli

    (tmp_path / "pack.toml").write_text("id = 3")
    done = CliRunner().invoke(cli.app, ["check", str(tmp_path), "--json", "--receipts", str(tmp_path / "receipts")])
    assert done.exit_code == 1
    (pack,) = json.loads(done.stdout)["packs"]
    assert pack["wrong"] == 1
    assert "pack.toml" in pack["problems"][0]


@pytest.mark.slow
def test_the_manual_page_is_up_to_date():
    man_page = scripts.load("tools/docs/man_page.py")
    assert man_page.FILE.read_text(encoding="utf-8") == man_page.manual(), "run python tools/docs/man_page.py --write"


@pytest.mark.parametrize("heavy", ["torch", "transformers", "fastapi", "sqlalchemy", "numpy"])
def test_importing_clearhead_imports_nothing_heavy(heavy):
    assert python(f"import sys, clearhead; print({heavy!r} in sys.modules)") == "False"


def test_every_public_name_resolves():
    import clearhead

    missing = [name for name in clearhead.__all__ if getattr(clearhead, name, None) is None]
    assert missing == []


def test_an_unknown_name_is_answered_with_the_known_ones():
    import clearhead

    with pytest.raises(AttributeError, match="AttentionMatrix"):
        clearhead.atention  # noqa: B018


@pytest.mark.slow
def test_a_function_is_not_replaced_by_importing_a_room():
    imports = "import clearhead.multihead, clearhead.capture"
    assert answer(f"{imports}; print(callable(clearhead.attention), callable(clearhead.observe))") == "True True"
