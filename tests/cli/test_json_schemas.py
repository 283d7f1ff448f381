"""The commands' --json output validates against docs/cli.schema.json, and has no field that is not in it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clearhead import kernels
from clearhead.cli.app import app
from cli.every_command import WITH_JSON
from cli.surveyed import make_surveyed, without_work

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "cli.schema.json").read_text())
jsonschema_rs = pytest.importorskip(
    "jsonschema_rs", reason="jsonschema-rs, which schemathesis brings, is not installed"
)


def strict(schema: Any) -> Any:
    """Return the schema with other fields forbidden, so that a new field must be documented."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
    return closed | {name: strict(part) for name, part in schema.items()}


def errors(command: str, data: Any) -> list[str]:
    schema = {"$ref": f"#/$defs/{command}", "$defs": strict(SCHEMA["$defs"])}
    return [
        f"{error.instance_path}: {error.message[:200]}"
        for error in jsonschema_rs.validator_for(schema).iter_errors(data)
    ]


def printed(*arguments: str) -> Any:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


def definition(command: tuple[str, ...]) -> str:
    return command[0]


def test_every_command_with_json_has_a_schema_and_a_line_on_the_page_of_its_versioned_format():
    assert {definition(command) for command in WITH_JSON} == set(SCHEMA["$defs"]) - {"axis", "missed"}
    rows = (DOCS / "reference" / "command-line.md").read_text().split("## JSON")[1].splitlines()
    formats = set()
    for command in WITH_JSON:
        schema = SCHEMA["$defs"][definition(command)]
        version = schema["properties"]["format"]["const"]
        assert re.fullmatch(r"clearhead\.\w+/\d+", version)
        assert "format" in schema["required"]
        assert schema["title"].endswith(f", version {version.split('/')[1]}")
        assert any(f"`{' '.join(command)}`" in row and f"| `{version}` |" in row for row in rows), command
        formats.add(version)
    assert len(formats) == len({definition(command) for command in WITH_JSON})


def test_every_command_with_json_is_run_here():
    run = Path(__file__).read_text()
    missing = [c for c in WITH_JSON if f"printed({', '.join(map(json.dumps, c))}" not in run and c != ("survey", "run")]
    assert missing == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("the keeper",), ("the keeper", "--layer", "1", "--head", "2"), ("the", "--rollout")], ids=str
)
def test_see(arguments):
    assert errors("see", printed("see", *arguments, "--model", "induction")) == []


@pytest.mark.slow
def test_compare():
    assert errors("compare", printed("compare", "induction", "induction", "the keeper")) == []


@pytest.mark.slow
def test_check(tmp_path, monkeypatch):
    """A pack with an item that holds, and one with an item that does not."""
    monkeypatch.chdir(tmp_path)
    for pack in ("good", "wrong"):
        assert CliRunner().invoke(app, ["new", "pack", pack]).exit_code == 0
    (item,) = (tmp_path / "wrong" / "items").glob("*.md")
    item.write_text(item.read_text().split("```")[0])
    data = printed("check", "good", "wrong")
    assert errors("check", data) == []
    assert data["wrong"] > 0


@pytest.mark.slow
def test_doctor_and_models():
    assert errors("doctor", printed("doctor")) == []
    assert errors("models", printed("models")) == []
    assert errors("models", printed("models", "list")) == []


def test_a_survey_that_asked_nothing(monkeypatch, tmp_path):
    make_surveyed(tmp_path / "surveyed")
    without_work(monkeypatch)
    assert errors("survey", printed("survey", "report", str(tmp_path / "surveyed"))) == []


@pytest.mark.slow
def test_survey(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")
    (tmp_path / "texts.txt").write_text("the keeper of the keep\nthe cat and the cat\n")
    survey = ("induction", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "out"), "--no-ray")
    data = printed("survey", *survey)
    assert errors("survey", data) == []
    assert data == printed("survey", "report", str(tmp_path / "out"))
    assert len(data["rows"]) == 8 * len(data["statistics"])


@pytest.mark.stress
def test_tune(monkeypatch, tmp_path):
    if not kernels.targets():
        pytest.skip("the native library was not built on this machine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLEARHEAD_TUNE", "1")
    assert errors("tune", printed("tune", "--seconds", "1")) == []


def test_a_field_that_is_not_documented_is_found():
    finding = {"works": True, "found": "x"}
    named = {"format": "clearhead.doctor/1"}
    assert errors("doctor", named | {"Kernels": {"native": finding}}) == []
    assert errors("doctor", {"Kernels": {"native": finding}}) != []
    assert errors("doctor", named | {"Kernels": {"native": {**finding, "more": 1}}}) != []
    assert errors("doctor", named | {"Kernels": {"native": {"works": True}}}) != []
