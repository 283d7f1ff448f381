"""No program reads an answer, wherever the package is installed and whatever folder around it is granted."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip(
    "rapidfuzz", reason="the answers of a course are kept from programs: pip install 'clearhead[course]'"
)

import clearhead
from clearhead import course, sandbox
from clearhead.sandbox.confinement import grants

NAMES = [one.name for one in sandbox.available()]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
CACHES = (grants._wanted, grants._granted, grants._private, grants._readable)
TRY = """
import os
opened = []
for path in {secrets!r}:
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            open(path, 'rb').read()
    except OSError:
        continue
    opened.append(path)
import json, clearhead.errors, colorsys
print(json.dumps(opened))
"""
HOST = """
import json, pathlib
from clearhead import sandbox
sandbox.hide(pathlib.Path({pack!r}))
done = sandbox.run({program!r}, name={name!r})
print(json.dumps([done.stdout, str(done.raised), done.stderr]))
"""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that is granted whole, and holds a copy of the package and everything private."""
    prefix = tmp_path_factory.mktemp("prefix")
    site = prefix / "lib" / PYTHON / "site-packages"
    shutil.copytree(
        Path(clearhead.__file__).parent, site / "clearhead", ignore=shutil.ignore_patterns("static", "*.so")
    )
    (site / "whole.pth").write_text(f"import site; site.getsitepackages = lambda *_: [{str(prefix)!r}]\n")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (prefix / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    for name in (
        "home/.local/share/clearhead/clearhead.db", "home/.local/share/clearhead/proofs/attention/a.json",
        "home/.cache/clearhead/receipt.json", "home/notes.txt", "tmp/clearhead-run-other/program.py",
        "packs/mine/items/a.md", "lib/python3.10/dist-packages/clearhead/packs/attention/pack.toml",
        "clearhead-0.1.0.whl", "cache/prefix/usr/studio/explore/own_class.pyc", "lib/python3.12/site-packages/clearhead_pack/a.md",
    ):  # fmt: skip
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text("secret")
    (prefix / "answers").symlink_to(site / "clearhead" / "packs")
    (prefix / "lib" / "answers").symlink_to(prefix / "packs" / "mine" / "items" / "a.md")
    (site / "installed.py").write_text("def answer(): return 42\n")
    (site / "installed-1.2.dist-info").mkdir()
    (site / "installed-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1.2\n")
    (prefix / "share" / "data").mkdir(parents=True)
    (prefix / "share" / "data" / "open.txt").write_text("open")
    return prefix


def secrets(prefix: Path) -> list[str]:
    package = prefix / "lib" / PYTHON / "site-packages" / "clearhead"
    packs = [path for path in (package / "packs").rglob("*") if path.is_file()]
    named = ["clearhead-0.1.0.whl", "answers/attention/pack.toml", "lib/answers", "home", "tmp", "packs", "packs/mine"]
    text = [path for path in prefix.rglob("*") if path.is_file() and path.stat().st_size == 6]
    return [*map(str, [*packs[::7], *text, package / "studio" / "reveal.py"]), *(f"{prefix}/{name}" for name in named)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_answer_is_read_where_the_package_is_in_a_folder_that_is_granted(prefix: Path, name: str) -> None:
    hidden = secrets(prefix)
    assert len(hidden) > 30
    program = TRY.format(secrets=[*hidden, str(prefix / "share" / "data" / "open.txt")])
    host = HOST.format(pack=str(prefix / "packs" / "mine"), program=program, name=name)
    environment = {
        "HOME": str(prefix / "home"), "TMPDIR": str(prefix / "tmp"), "PATH": os.environ["PATH"],
        "PYTHONPYCACHEPREFIX": str(prefix / "cache" / "prefix"), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [prefix / "bin" / "python", "-c", host], env=environment, cwd=prefix / "share", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    stdout, raised, said = json.loads(done.stdout)
    assert raised == "None", said
    opened = json.loads(stdout)
    allowed = {str(prefix / "share" / "data" / "open.txt"), f"{prefix}/packs", f"{prefix}/tmp"}
    assert allowed - {f"{prefix}/packs", f"{prefix}/tmp"} <= set(opened) <= allowed


IMPORTS = """
import importlib.metadata, installed
from clearhead import drawing
print(installed.answer(), importlib.metadata.version("installed"), drawing.__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_program_imports_what_is_installed_beside_the_package(prefix: Path, name: str) -> None:
    host = HOST.format(pack=str(prefix / "packs" / "mine"), program=IMPORTS, name=name)
    environment = {"HOME": str(prefix / "home"), "TMPDIR": str(prefix / "tmp"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [prefix / "bin" / "python", "-B", "-c", host], env=environment, cwd=prefix, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    stdout, raised, said = json.loads(done.stdout)
    assert stdout == "42 1.2 clearhead.drawing\n", (raised, said)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_torch_is_imported_and_computes(name: str) -> None:
    done = sandbox.run("import torch\nprint(torch.ones(2, 3).sum().item())", name=name)
    assert done.stdout == "6.0\n", done


@pytest.fixture
def again() -> Iterator[None]:
    for one in CACHES:
        one.cache_clear()
    yield
    for one in CACHES:
        one.cache_clear()


@pytest.mark.usefixtures("again")
@pytest.mark.parametrize("granted", ["", "lib", "lib/site-packages", "lib/site-packages/clearhead"])
def test_every_granted_ancestor_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: str) -> None:
    package = tmp_path / "lib" / "site-packages" / "clearhead"
    for name in ("packs/a/items", "studio", "course", "masks/packs"):
        (package / name).mkdir(parents=True)
    (package.parent / "numpy" / "packs").mkdir(parents=True)
    monkeypatch.setattr(grants, "_PACKAGE", package)
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path / granted}))
    allowed = grants.readable()
    assert not any(grants.inside(path, [package / "packs", package / "studio"]) for path in allowed)
    assert not {*package.parents, package, tmp_path}.intersection(allowed)
    assert grants.inside(package / "course", allowed)
    assert grants.inside(package / "masks" / "packs", allowed)
    assert grants.inside(package.parent / "numpy" / "packs", allowed) == (not granted.endswith("clearhead"))


@pytest.mark.usefixtures("again")
def test_a_checkout_is_private_except_for_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "src" / "clearhead"
    for name in ("src/clearhead/packs", "src/clearhead/masks", "tests/packs", "docs", "venv/lib/site-packages/torch"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(grants, "_PACKAGE", package)
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path.parent, tmp_path / "venv" / "lib"}))
    allowed = [path for path in grants.readable() if tmp_path in (path, *path.parents)]
    assert allowed == [package / "masks", tmp_path / "venv" / "lib"]


@pytest.mark.usefixtures("again")
def test_a_package_in_a_zip_file_hides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as packed:
        packed.writestr("clearhead/packs/a/pack.toml", "secret")
    (tmp_path / "other").touch()
    monkeypatch.setattr(grants, "_PACKAGE", tmp_path / "app.pyz" / "clearhead")
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path}))
    assert grants.readable() == [tmp_path / "other"]


@pytest.mark.usefixtures("again")
def test_a_link_into_a_granted_folder_grants_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As /lib leads to /usr/lib: both names must be cut."""
    package = tmp_path / "usr" / "lib" / "python3" / "dist-packages" / "clearhead"
    (package / "packs").mkdir(parents=True)
    (tmp_path / "usr" / "lib" / "x").mkdir()
    (tmp_path / "lib").symlink_to("usr/lib")
    monkeypatch.setattr(grants, "_PACKAGE", package)
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path / "usr", tmp_path / "lib"}))
    allowed = grants.readable()
    assert allowed == [tmp_path / "usr" / "lib" / "x"]
    assert grants.links(allowed) == {}


@pytest.mark.usefixtures("again")
def test_a_home_inside_is_private_and_its_python_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "ada"
    for name in ("python/lib", ".local/share/clearhead", "notes"):
        (home / name).mkdir(parents=True)
    (tmp_path / "share").mkdir()
    monkeypatch.setattr(grants, "_PACKAGE", tmp_path / "elsewhere" / "clearhead")
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path, home / "python" / "lib"}))
    monkeypatch.setenv("HOME", str(home))
    assert home in grants.hidden()
    assert grants.readable(grants.hidden()) == [home / "python" / "lib", tmp_path / "share"]


def test_what_nothing_granted_would_show_need_not_be_hidden(tmp_path: Path) -> None:
    before = grants.hidden()
    sandbox.hide(tmp_path / "pack")
    assert grants.hidden() == before


@pytest.mark.usefixtures("again")
def test_what_is_loaded_is_hidden_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Path(__file__).parents[2] / "packs" / "good"
    shutil.copytree(good, tmp_path / "share" / "pack")
    monkeypatch.setattr(grants, "_PACKAGE", tmp_path / "elsewhere" / "clearhead")
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path}))
    monkeypatch.setattr(grants, "_hidden", set())
    assert grants.inside(tmp_path / "share" / "pack", grants.readable(grants.hidden()))
    course.load(tmp_path / "share" / "pack")
    assert not grants.inside(tmp_path / "share" / "pack", grants.readable(grants.hidden()))


@pytest.mark.usefixtures("again")
def test_of_usr_programs_read_libraries_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that a distribution installs is not a library, whatever it is called."""
    monkeypatch.setattr(grants, "_PACKAGE", Path("/elsewhere/clearhead"))
    allowed = grants.readable()
    for place in ("share/clearhead", "share/doc/python3-clearhead", "share/course/pack", "src/clearhead", "local/share/clearhead",
                  "local/src/pack", "games", "include", "share/python-wheels", "local/etc", "local/games"):  # fmt: skip
        assert not grants.inside(Path("/usr") / place, allowed), place


@pytest.mark.usefixtures("again")
@pytest.mark.parametrize(
    ("place", "shown"),
    [("clearhead/venv/lib/site-packages/clearhead/packs/a.md", False), ("clearhead/app/course.md", False),
     ("my-clearhead/packs/a.md", False), ("python3/dist-packages/org.clearhead.course/a.md", False),
     ("python3/dist-packages/clearhead/packs/a.md", False), ("python3/dist-packages/clearhead/masks/a.py", True),
     ("python3.11/site-packages/course_clearhead/a.md", False), ("python3.11/site-packages/_editable_clearhead.py", True),
     ("python3.11/site-packages/clearhead-1.dist-info/RECORD", True), ("unclearheaded/a.txt", True)],
)  # fmt: skip
def test_copies_in_a_folder_of_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, shown: bool
) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("answers")
    monkeypatch.setattr(grants, "_PACKAGE", tmp_path.parent / "elsewhere" / "clearhead")
    monkeypatch.setattr(grants, "_wanted", lambda: frozenset({tmp_path}))
    assert grants.inside(tmp_path / place, grants.readable()) == shown
