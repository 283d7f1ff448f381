"""What commands print with --json is what docs/cli.schema.json says, and has no field that is not in it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clearhead import kernels
from clearhead.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "cli.schema.json").read_text())
jsonschema_rs = pytest.importorskip(
    "jsonschema_rs", reason="jsonschema-rs, which schemathesis brings, is not installed"
)


def strict(schema: Any) -> Any:
    """The schema without room for other fields: a new one belongs into the document."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
    return {name: strict(part) for name, part in schema.items()} | closed


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


def test_the_page_names_the_format_of_each_command():
    page = (DOCS / "reference" / "command-line.md").read_text()
    for command in set(SCHEMA["$defs"]) - {"axis", "missed"}:
        version = SCHEMA["$defs"][command].get("properties", {}).get("format", {}).get("const")
        row = next(line for line in page.split("## JSON")[1].splitlines() if line.startswith(f"| `{command}` |"))
        assert f"`{version}`" in row if version else "version 1" in row
        assert SCHEMA["$defs"][command]["title"].endswith(f"version {str(version or 1)[-1]}")


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


@pytest.mark.stress
def test_tune(monkeypatch, tmp_path):
    if not kernels.targets():
        pytest.skip("the native library was not built on this machine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLEARHEAD_TUNE", "1")
    assert errors("tune", printed("tune", "--seconds", "1")) == []


def test_a_field_that_is_not_documented_is_found():
    finding = {"works": True, "found": "x"}
    assert errors("doctor", {"Kernels": {"native": finding}}) == []
    assert errors("doctor", {"Kernels": {"native": {**finding, "more": 1}}}) != []
    assert errors("doctor", {"Kernels": {"native": {"works": True}}}) != []
