"""Write [project.urls] into pyproject.toml: the addresses of the repository that a workflow runs in.

`python tools/project_urls.py` reads GITHUB_SERVER_URL and GITHUB_REPOSITORY, which GitHub sets. The workflows run it
before they build, so that a package names the repository that released it, a fork's too.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

FILE = Path(__file__).parents[1] / "pyproject.toml"


def with_urls(project: str, environment: Mapping[str, str]) -> str:
    """Return a pyproject.toml with the addresses of a repository.

    Raises:
        SystemExit: no repository is named, or the file has addresses.

    >>> where = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "someone/attention"}
    >>> print(with_urls('[project]\\nname = "attention"\\n', where))
    [project]
    name = "attention"
    <BLANKLINE>
    [project.urls]
    Documentation = "https://someone.github.io/attention/"
    Repository = "https://github.com/someone/attention"
    Issues = "https://github.com/someone/attention/issues"
    Changelog = "https://github.com/someone/attention/blob/main/CHANGELOG.md"
    <BLANKLINE>
    """
    server, repository = (environment.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    owner, _, name = repository.partition("/")
    if not (server and owner and name):
        raise SystemExit(
            "GITHUB_SERVER_URL and GITHUB_REPOSITORY name no repository, expected for example https://github.com and "
            "owner/name. GitHub's workflows set both; set them to build a package elsewhere."
        )
    if "urls" in tomllib.loads(project).get("project", {}):
        raise SystemExit("pyproject.toml has [project.urls] already. Restore it with git, or leave this step out.")
    home = f"{server}/{repository}"
    urls = {
        "Documentation": f"https://{owner.lower()}.github.io/{name}/",
        "Repository": home,
        "Issues": f"{home}/issues",
        "Changelog": f"{home}/blob/main/CHANGELOG.md",
    }
    lines = "".join(f'{label} = "{url}"\n' for label, url in urls.items())
    return f"{project.rstrip()}\n\n[project.urls]\n{lines}"


if __name__ == "__main__":
    FILE.write_text(with_urls(FILE.read_text(), os.environ))
