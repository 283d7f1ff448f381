"""`clearhead new`, the schemas, and what the manual says."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clearhead import cli, course, sandbox
from clearhead.course.exchange import FORMS
from clearhead.course.pack import scaffold
from clearhead.course.pack.blocks import ROLES, SECTIONS
from clearhead.course.pack.front_matter import Front
from clearhead.errors import OptionError

DOCS = Path(__file__).parents[3] / "docs"
confined = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")


@pytest.mark.slow
@confined
def test_a_new_pack_holds(tmp_path: Path) -> None:
    place = scaffold.new_pack(tmp_path / "my-pack")
    pack = course.load(place)
    assert [one.error for one in course.prove_pack(pack)] == [""]
    with pytest.raises(OptionError, match="not empty"):
        scaffold.new_pack(place)
    with pytest.raises(OptionError, match="lower-case"):
        scaffold.new_pack(tmp_path / "My Pack")


@confined
@pytest.mark.slow
def test_a_new_item_of_each_kind_is_well_formed_and_not_yet_proved(tmp_path: Path) -> None:
    place = scaffold.new_pack(tmp_path / "my-pack")
    for kind in course.KINDS:
        scaffold.new_item(place, f"new-{kind}", kind)
    outcomes = {one.item_id: one for one in course.prove_pack(course.load(place))}
    for kind in course.KINDS:
        one = outcomes[f"new-{kind}"]
        assert not one.ok, kind
        assert re.search("NotImplementedError|not written yet", one.error), one.error
        assert one.line
    with pytest.raises(OptionError, match="already exists"):
        scaffold.new_item(place, "new-card", "card")
    with pytest.raises(OptionError, match="no kind"):
        scaffold.new_item(place, "other", "essay")
    with pytest.raises(OptionError, match="no topic"):
        scaffold.new_item(place, "other", "card", "nowhere")


def test_the_schemas_are_current() -> None:
    assert (DOCS / "item.schema.json").read_text() == scaffold.schema("item")
    assert (DOCS / "pack.schema.json").read_text() == scaffold.schema("pack")


def test_the_manual_names_everything() -> None:
    """Each key, section, role, kind and format is in docs/authoring.md."""
    text = (DOCS / "authoring.md").read_text()
    for name in (*Front.model_fields, *SECTIONS, *ROLES, *course.KINDS, *FORMS):
        assert re.search(rf"(?<![\w-]){re.escape(name)}s?(?![\w-])", text), (
            f"docs/authoring.md does not speak of {name!r}"
        )


@pytest.mark.slow
@confined
def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = CliRunner().invoke
    assert call(cli.app, ["new", "pack", "my-pack"]).exit_code == 0
    assert call(cli.app, ["check", "my-pack"]).exit_code == 0
    assert (tmp_path / ".receipts" / "my-pack.json").exists()
    assert call(cli.app, ["new", "item", "my-pack", "one", "--kind", "predict"]).exit_code == 0
    failed = call(cli.app, ["check", "my-pack"])
    assert failed.exit_code == 1
    assert "my-pack/items/one.md:13: not written yet" in failed.output
    assert call(cli.app, ["check", "my-pack", "--item", "first-card", "--jobs", "1"]).exit_code == 0
    (tmp_path / "my-pack" / "items" / "one.md").unlink()
    wrote = call(cli.app, ["export", "my-pack", "--to", "gift"])
    assert "wrote 1 item to my-pack-gift.gift" in wrote.output
    drafts = call(cli.app, ["import", "my-pack-gift.gift", "--into", "my-pack"])
    assert "1 draft in" in drafts.output
    assert call(cli.app, ["new", "schema"]).output == scaffold.schema()
    assert call(cli.app, ["export", "my-pack", "--to", "word"]).exit_code == 2
