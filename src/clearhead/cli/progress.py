"""Show the progress of a long command on standard error, if that is a terminal, so that it never mixes with results."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Tell = Callable[[int, int], None]  # (done, total)


@contextmanager
def progress(task: str) -> Iterator[Tell]:
    """Show a progress line while the block runs and remove it afterwards; the block calls `tell(done, total)`."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from clearhead.console import console

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        line = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def _silent(_done: int, _total: int) -> None:
    """Show nothing: standard error is not a terminal."""
