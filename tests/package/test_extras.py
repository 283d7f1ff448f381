"""Optional libraries: whatever needs one says which extra to install, in one sentence."""

import re
from pathlib import Path

import pytest

import fresh
from clearhead.errors import ClearheadError, ExtraError
from clearhead.extras import needs
from extra_libraries import libraries

EXTRAS = ("cli", "course", "models", "views", "studio", "postgresql", "survey")
SEE = (["see", "a"], ["see", "a", "--model", "induction"], ["compare", "-", "-", "a"])
CHECK = (["check"], ["new", "pack", "x"], ["new", "schema"], ["new", "item", "x", "y", "--kind", "card"],
         ["export", "x", "--to", "csv"], ["import", "x", "--into", "y"])  # fmt: skip
# With a certificate that is not there: without a library that it can do without the studio would serve, and never end.
STUDIO = (["studio", "--certificate", "x", "--key", "y"], ["studio", "user", "list"], ["studio", "user", "add", "x"], ["studio", "user", "reset", "x"],
          ["studio", "user", "remove", "x"])  # fmt: skip
SURVEY = (["survey", "-", "x", "--out", "y"], ["survey", "report", "y"])
COMMANDS = {
    "cli": ([], ["--help"], ["--version"], ["doctor"], *SEE, *CHECK, *STUDIO, *SURVEY),
    "course": CHECK,
    "models": SEE,
    "views": (),
    "studio": STUDIO,
    "survey": SURVEY,
    "postgresql": (["studio", "user", "list", "--database", "postgresql://a@127.0.0.1/b"],),
}
CALLS = {
    "cli": ("import clearhead.cli", "from clearhead.console import console", "from clearhead.views import terminal",
            "from clearhead.views import terminal_comparison"),
    "course": ("import clearhead.course", "from clearhead.course import exchange"),
    "models": ("clearhead.register_with_transformers()", "from clearhead.capture import load; load('induction')",
               "from clearhead.capture import load; load()",
               "from clearhead.matrix.store import save; save(clearhead.AttentionMatrix(q, q), 'x')",
               "from clearhead.matrix.store import load; load(__file__)",
               "from clearhead.capture.media.pictures import opened; opened('x.png')"),
    "views": ("from clearhead.views import plot", "from clearhead.views.widget import AttentionWidget"),
    "studio": ("import clearhead.studio.app.application", "import clearhead.studio.app.serving",
               "import clearhead.studio.accounts.users"),
    "survey": ("from clearhead.survey import check_installed; check_installed()",
               "from clearhead.survey.parquet import table_bytes; table_bytes({})"),
    "postgresql": (
        "from clearhead.studio.learner.database import postgresql_url; postgresql_url('postgresql://a@b/c')",
    ),
}  # fmt: skip
# Each library is hidden as if it were not installed; then everything that needs the extra is tried.
PROGRAM = """
import contextlib, io, sys
__file__ = {file!r}
for name in {hidden!r}:
    sys.modules[name] = None
import torch, clearhead, clearhead.__main__
q = torch.randn(1, 2, 5, 3)
results = []
for arguments in {commands!r}:
    words = io.StringIO()
    sys.argv = ["clearhead", *arguments]
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(words):
        try:
            clearhead.__main__.main()
        except SystemExit as left:
            status = left.code
    results.append((" ".join(arguments), status, words.getvalue()))
for call in {calls!r}:
    try:
        exec(call)
    except (ImportError, clearhead.errors.ClearheadError) as error:
        results.append((call, 2 if isinstance(error, clearhead.errors.ClearheadError) else repr(error), str(error)))
    else:
        results.append((call, 0, ""))
print(results)
"""


def tried(extra: str, hidden: set[str], tmp_path: Path) -> list[tuple[str, int, str]]:
    file = tmp_path / "a file"
    file.touch()
    program = PROGRAM.format(hidden=sorted(hidden), commands=COMMANDS[extra], calls=CALLS[extra], file=str(file))
    done = fresh.run(program, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    return [tuple(one) for one in eval(done.stdout)]  # noqa: S307 — our own program's list


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_without_an_extra_all_that_needs_it_says_so(extra: str, tmp_path: Path) -> None:
    hidden = libraries(extra)
    assert hidden
    for what, status, words in tried(extra, hidden, tmp_path):
        assert status == 2, f"{what}: {status} {words}"
        assert f"pip install 'clearhead[{extra}]'" in words, f"{what}: {words}"
        assert "Traceback" not in words
        assert words.strip().count("\n") == 0


@pytest.mark.stress
@pytest.mark.parametrize("extra", EXTRAS)
def test_without_one_library_nothing_ends_in_a_traceback(extra: str, tmp_path: Path) -> None:
    for library in libraries(extra):
        for what, status, words in tried(extra, {library}, tmp_path):
            assert status in (0, 1, 2), f"{what} without {library}: {status} {words}"
            assert "Traceback" not in words
            assert "pip install" in words or library not in words, f"{what} without {library}: {words}"


@pytest.mark.slow
def test_every_optional_import_is_asked_for_by_needs() -> None:
    """A new import of an optional library outside `needs`, in a room that is there without the extra, is found here."""
    optional = set().union(*map(libraries, EXTRAS)) - {"numpy"}
    source = Path(__file__).parents[2] / "src" / "clearhead"
    bare = []
    for file in sorted(source.rglob("*.py")):
        if file.relative_to(source).parts[0] in ("studio", "course", "cli"):
            continue  # their ways in are guarded as a whole
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            found = re.match(r"\s*(?:from|import) (\w+)", line)
            if found and found[1] in optional and not _guarded(lines, number):
                bare.append(f"{file.relative_to(source)}:{number + 1}: {line.strip()}")
    # These run only where the library has been imported already.
    inside = (
        "capture/adapters/transformers_interface.py",
        "capture/models/continuation.py",
        "capture/models/loading.py",
        "capture/models/processors.py",  # by loading.py
        "multihead/transformers_backend.py",
        "survey/",  # check_installed comes first
        "views/plot.py",
    )
    known = [one for one in bare if one.startswith(inside)]
    assert bare == known, bare


def _guarded(lines: list[str], number: int) -> bool:
    """Whether the line is in a block of `with needs`, `try` or `if TYPE_CHECKING`, or in a docstring's example."""
    depth = len(lines[number]) - len(lines[number].lstrip())
    for line in reversed(lines[:number]):
        if line.strip() and len(line) - len(line.lstrip()) < depth:
            return line.strip().startswith(("with needs(", "if TYPE_CHECKING", "try:"))
    return False


def test_an_error_of_ours_is_not_taken_for_a_missing_library() -> None:
    with pytest.raises(ModuleNotFoundError) as raised, needs("studio", "this"):
        import clearhead.no_such_room  # type: ignore[import-not-found]  # noqa: F401
    assert not isinstance(raised.value, ClearheadError)


def test_a_library_that_is_too_old_is_to_be_upgraded() -> None:
    with (
        pytest.raises(ExtraError, match=r"another version of json .*pip install --upgrade 'clearhead\[studio\]'"),
        needs("studio", "this"),
    ):
        from json import no_such_name  # type: ignore[attr-defined]  # noqa: F401
