"""The workflows and forms for GitHub: they parse, have the keys that GitHub requires, and call make targets that exist."""

import re
import tomllib
from pathlib import Path

import pytest
from tools.project_urls import with_urls

import clearhead

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


# What a job may do beyond reading: to publish, nothing but its own short-lived token.
MORE_RIGHTS = {
    ("codeql", "analyze"): {"contents": "read", "security-events": "write"},
    ("docs", "publish"): {"pages": "write", "id-token": "write"},
    ("release", "publish"): {"id-token": "write"},
}
PINNED = re.compile(r"[\w-]+/[\w/-]+@[0-9a-f]{40}")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_least_rights_and_pinned_actions(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow[True], "when it runs: YAML 1.1 reads `on` as true"
    assert workflow["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name, job in workflow["jobs"].items():
        assert job.get("permissions") == MORE_RIGHTS.get((path.stem, name)), name
        needed = job.get("needs", [])
        assert ({needed} if isinstance(needed, str) else set(needed)) <= set(workflow["jobs"])
        if "uses" in job:  # a workflow of ours
            called = yaml.safe_load((ROOT / job["uses"]).read_text())
            assert "workflow_call" in called[True]
            continue
        assert job["runs-on"], name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert "uses" not in step or PINNED.fullmatch(step["uses"]), step["uses"]
            words = step.get("run", "").split()
            assert words[:1] != ["make"] or {word for word in words[1:] if "=" not in word} <= targets


def test_each_pin_says_its_version_and_is_the_same_everywhere():
    pins = [found for path in WORKFLOWS for found in re.findall(r"uses: (\S+)@([0-9a-f]{40})(.*)", path.read_text())]
    assert all(re.fullmatch(r"  # v\d+(\.\d+)*", comment) for _, _, comment in pins)
    by_repository = {}
    for action, pin, comment in pins:
        by_repository.setdefault("/".join(action.split("/")[:2]), set()).add((pin, comment))
    assert {name for name, found in by_repository.items() if len(found) > 1} == set()


def test_a_release_is_tested_and_built_before_it_is_published():
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert set(release["jobs"]["publish"]["needs"]) == {"test", "wheels"}
    assert release["jobs"]["wheels"]["uses"] == "./.github/workflows/wheels.yml"
    steps = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())["jobs"]
    uploaded = {
        step["with"]["name"]
        for job in steps.values()
        for step in job["steps"]
        if "with" in step and "name" in step["with"]
    }
    assert all(name.startswith("wheels-") for name in uploaded)  # the pattern that is published


def test_a_package_names_the_repository_that_built_it():
    where = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "Someone/clearhead"}
    project = (ROOT / "pyproject.toml").read_text()
    written = with_urls(project, where)
    before, after = tomllib.loads(project)["project"], tomllib.loads(written)["project"]
    assert after.pop("urls")["Repository"] == "https://github.com/Someone/clearhead"
    assert after == before
    with pytest.raises(SystemExit, match="already"):
        with_urls(written, where)
    with pytest.raises(SystemExit, match="name no repository"):
        with_urls(project, {"GITHUB_SERVER_URL": "https://github.com"})
    jobs = yaml.safe_load((ROOT / ".github/workflows/wheels.yml").read_text())["jobs"]
    for job in jobs.values():
        runs = [step.get("run", "") for step in job["steps"]]
        assert runs.index("python tools/project_urls.py") < next(i for i, run in enumerate(runs) if "build" in run)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_requires(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"]
    assert form["description"]
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in form["body"])


def test_the_conda_recipe_asks_for_what_the_package_asks_for():
    """conda's package has the command, so it needs the extra `cli` too; torch is called pytorch there."""
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["cli"]}
    asked = {requirement.replace("torch>", "pytorch>") for requirement in asked}
    run = {requirement.replace(" ", "") for requirement in recipe["requirements"]["run"]}
    assert run == {*asked, f"python{project['project']['requires-python']}"}
    host = {requirement.replace(" ", "") for requirement in recipe["requirements"]["host"]}
    assert host == {"python", "pip", *project["build-system"]["requires"]}
    assert recipe["context"]["version"] == project["project"]["version"]
    assert recipe["about"]["license"] == project["project"]["license"]


def test_the_citation_is_of_this_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == clearhead.__version__
