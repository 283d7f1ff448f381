"""Build the package with scikit-build-core. If the native library fails to build, leave it out and keep the reason.

The reason goes into the package (`kernels/native/build_failure.txt`), for `clearhead doctor` and for errors of features
that need the library. scikit-build-core's own `if.failed` override retries as well, but keeps no reason.
"""

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scikit_build_core import build as scikit
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

Settings = dict[str, list[str] | str] | None
FAILURE = Path("src/clearhead/kernels/native/build_failure.txt")
WITHOUT_LIBRARY = {"wheel.cmake": "false", "wheel.py-api": "py3"}
KEPT_LINES = 400
# pip caches the wheel that it builds from an sdist, and would install it again where there is a compiler by now.
AGAIN = "(with pip's options --force-reinstall --no-cache-dir)"
NO_COMPILER = ("No CMAKE_CXX_COMPILER could be found", "CMAKE_CXX_COMPILER not set")


def build_wheel(folder: str, settings: Settings = None, metadata: str | None = None) -> str:
    """Build a wheel into `folder`; the native library is left out if it fails to build."""
    return _build(scikit.build_wheel, folder, settings, metadata)


def build_editable(folder: str, settings: Settings = None, metadata: str | None = None) -> str:
    """Build an editable wheel into `folder`; the native library is left out if it fails to build."""
    return _build(scikit.build_editable, folder, settings, metadata)


def _build(build: Callable[..., str], folder: str, settings: Settings, metadata: str | None) -> str:
    FAILURE.unlink(missing_ok=True)
    if settings and str(settings.get("wheel.cmake")).lower() == "false":  # as `make setup` asks, for the dependencies
        return build(folder, {**settings, **WITHOUT_LIBRARY}, metadata)
    with _last_lines() as lines:
        try:
            return build(folder, settings, metadata)
        except (Exception, SystemExit) as error:  # SystemExit: how scikit-build-core reports that CMake failed
            if os.environ.get("CLEARHEAD_REQUIRE_NATIVE"):
                raise
            exception = error
    why = reason("".join(lines), exception)
    FAILURE.write_text(why + "\n", encoding="utf-8")
    first = why.splitlines()[0]
    print(
        f"\n*** clearhead: the native library was NOT built: {first}\n"
        "*** The package is installed without it, on torch's kernels. `clearhead doctor` repeats the reason.\n"
        f"*** When the reason is gone, install it again {AGAIN}.\n",
        file=sys.stderr,
        flush=True,
    )
    return build(folder, {**(settings or {}), **WITHOUT_LIBRARY}, metadata)


def reason(output: str, exception: BaseException) -> str:
    """Return why a build failed: one line, then the relevant lines of its output."""
    if any(mark in output for mark in NO_COMPILER):
        return f"no C++ compiler was found. Install g++ 12 or clang 14, or newer, and then clearhead again {AGAIN}"
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in output.splitlines()]
    errors = [i for i, line in enumerate(lines) if re.search(r"\berror\b\s?:|CMake Error|FAILED:", line)]
    compiler = [i for i in errors if re.search(r"\b(fatal )?error\b\s?:", lines[i])]
    if not errors:
        return f"the build ended with {type(exception).__name__}: {exception}"
    at = (compiler or errors)[0]
    headline = lines[at]
    if headline.startswith("CMake Error"):  # the sentence comes after the place
        headline += " " + next((line.strip() for line in lines[at + 1 :] if line.strip()), "")
    return "\n".join([f"its build failed: {headline.strip()}", *lines[max(0, at - 3) : at + 12]])


@contextmanager
def _last_lines() -> Iterator[deque[str]]:
    """Yield a list that collects the last lines printed by this process and its children, while passing them on."""
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    source, sink = os.pipe()

    def pass_on() -> None:
        with os.fdopen(source, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                lines.append(line)
                os.write(before[0], line.encode())

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        yield lines
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(before[0], 1)
        os.dup2(before[1], 2)
        reader.join()  # until every child has closed its end
        for descriptor in before:
            os.close(descriptor)
