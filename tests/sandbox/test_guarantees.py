"""What docs/security.md and `clearhead doctor` say of the sandbox."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.errors import SandboxError
from clearhead.sandbox import backends
from clearhead.sandbox.confinement import landlock, tmpfs
from clearhead.sandbox.processes import bubblewrap

ROOT = Path(__file__).parents[2]
NAMES = [one.name for one in sandbox.available()]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}


def claims() -> list[str]:
    """The sentences of the lists and the rows of the tables, without their heads."""
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = [row for row in re.sub(r"\n  +", " ", text).splitlines() if row.startswith(("- ", "| "))]
    return [row for row in rows if not row.endswith("| test |")]


def test_each_claim_names_a_test_that_exists() -> None:
    found = claims()
    assert len(found) > 30
    for claim in found:
        named = TEST.findall(claim)
        assert named, f"no test is named: {claim}"
        for file, function in named:
            assert function in functions(file), f"{file} has no {function}"


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
@pytest.mark.parametrize(
    ("abi", "network", "signals"),
    [
        (3, "the system call filter", "the system call filter; Landlock scopes them from Linux 6.12 on"),
        (
            4,
            "Landlock (TCP) and the system call filter",
            "the system call filter; Landlock scopes them from Linux 6.12 on",
        ),
        (6, "Landlock (TCP) and the system call filter", "Landlock scopes and the system call filter"),
    ],
)
def test_each_kernel_is_told_what_it_gives(
    monkeypatch: pytest.MonkeyPatch, abi: int, network: str, signals: str
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    told = sandbox.guarantees()
    assert (told["files"], told["network"], told["signals"]) == (f"Landlock ABI {abi}", network, signals)


@pytest.mark.skipif("bubblewrap" not in NAMES, reason="bubblewrap is not installed, or may make no namespaces here")
def test_bubblewrap_is_reported_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    told = sandbox.guarantees()
    assert "mount namespace" in told["files"]
    assert told["signals"] == "a process namespace and the system call filter"


@pytest.mark.slow
def test_the_doctor_tells_of_each_resource() -> None:
    pytest.importorskip("typer", reason="the doctor is a command: pip install 'clearhead[cli]'")
    from clearhead.cli import doctor

    told = {one.name: one.detail for one in doctor._studio() if one.name.startswith("sandbox ")}
    assert told == {f"sandbox {name}": said for name, said in sandbox.guarantees().items()}
    assert not NAMES or {"sandbox signals", "sandbox disk", "sandbox user"} <= told.keys()


def test_where_nothing_is_confined_nothing_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(bubblewrap, "works", lambda: False)
    monkeypatch.setattr(bubblewrap, "unusable", lambda: "bubblewrap may make no namespaces (why)")
    assert sandbox.guarantees() == {}
    assert sandbox.explain().endswith("; bubblewrap may make no namespaces (why)")


@pytest.mark.skipif("bubblewrap" not in NAMES, reason="bubblewrap is not installed, or may make no namespaces here")
def test_under_bubblewrap_a_program_is_nobody_out_here_too() -> None:
    made = "import os\nopen('a', 'w').close()\nprint(os.getuid())\nprint(os.stat('a').st_uid)"
    done = sandbox.run(made, name="bubblewrap")
    expected = tmpfs.NOBODY if os.getuid() == 0 else os.getuid()
    assert done.stdout == f"{expected}\n{expected}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give up root")
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_bubblewrap_refuses_to_run_programs_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a program of root's cannot become another user, bubblewrap is no way to confine it."""
    bubblewrap.unusable.cache_clear()
    command = bubblewrap._command
    kept = ("CAP_SETUID", "CAP_SETGID")

    def without(*given: object) -> list[str]:
        words = command(*given)  # type: ignore[arg-type]
        return [
            word for at, word in enumerate(words) if word not in kept and words[min(at + 1, len(words) - 1)] not in kept
        ]

    monkeypatch.setattr(bubblewrap, "_command", without)
    try:
        refused = bubblewrap.unusable() or ""
        assert "as an unprivileged user here (PermissionError" in refused
        assert refused.endswith("run clearhead as an ordinary user")
        with pytest.raises(SandboxError, match="no back end 'bubblewrap' here"):
            sandbox.run("1", name="bubblewrap")
    finally:
        bubblewrap.unusable.cache_clear()


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_what_is_not_defended_is_so() -> None:
    """These hold today. A change that defends them changes docs/security.md too."""
    assert sandbox.run("import os; print(os.stat('/etc/passwd').st_size > 0)").stdout == "True\n"
    assert sandbox.run("import time; print(time.perf_counter() > 0)").stdout == "True\n"
    forged = 'import os\nos.write(4, b\'{"raised": null, "values": {"x": "forged"}}\'); os._exit(0)'
    assert sandbox.run(forged, want=[("x", "")]).values == {"x": "forged"}


def test_a_tmpfs_is_offered_or_not_and_the_process_that_asks_stays_as_it_was() -> None:
    before = os.getuid(), Path("/tmp").stat().st_dev
    offered = tmpfs.offered()
    assert (os.getuid(), Path("/tmp").stat().st_dev) == before
    if "landlock" in NAMES:
        seen = sandbox.run("import os; print(os.stat('.').st_dev)", name="landlock").stdout
        assert offered == (int(seen) != Path(tempfile.gettempdir()).stat().st_dev)


@pytest.mark.parametrize("size", [1, 4096, 4097, 3 << 20])
def test_a_tmpfs_holds_what_it_should_to_the_page(size: int) -> None:
    program = f"""
import os, sys
sys.path += {[path for path in sys.path if path]!r}
from clearhead.sandbox.confinement import tmpfs
folder = tmpfs.Path(sys.argv[1])
if not tmpfs.own(folder, {size}):
    sys.exit(3)
os.chdir(folder)
written = 0
with open("a", "wb", buffering=0) as file:
    try:
        while True: written += file.write(b"x" * 1024)
    except OSError: pass
print(written)
"""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True)
        if done.returncode == 3:
            pytest.skip("the kernel gives no tmpfs here")
        assert list(Path(folder).iterdir()) == []
    assert done.stdout.split() == [str((-(-size // 4096) + 1) * 4096)], done.stderr


def test_the_back_ends_say_what_they_are() -> None:
    assert [one.name for one in backends.available()] == [name for name in ("landlock", "bubblewrap") if name in NAMES]
