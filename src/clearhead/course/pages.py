"""The programs of a topic's pages: they must run, and two runs must agree."""

from clearhead import sandbox
from clearhead.course.blocks import fences
from clearhead.course.item import Pack, Page
from clearhead.errors import ProofError
from clearhead.sandbox import Chunk, Limits

_LIMITS = Limits(seconds=60)


def prove_page(page: Page, pack: Pack) -> int:
    """Run the `python run` programs of a page, one after another in one namespace, twice.

    Returns:
        How many there are.
    Raises:
        ProofError: one raises, is stopped, or prints something else the second time; at its line.
    """
    chunks = [
        Chunk(source, page.file, line) for info, source, line in fences(page.text, page.file) if info == "python run"
    ]
    if not chunks:
        return 0
    first, second = (sandbox.run(chunks, limits=_LIMITS, preload=pack.preload, salt=salt) for salt in (1, 2))
    for run in (first, second):
        if run.raised:
            said = f"the program raises {run.raised.type}: {run.raised.message}"
            raise ProofError(said, file=page.file, line=run.raised.line or chunks[0].line)
        if run.stopped:
            raise ProofError(f"the page's programs were stopped: {run.stopped}", file=page.file, line=chunks[0].line)
    if first.stdout != second.stdout:
        rows = zip(first.stdout.splitlines(), second.stdout.splitlines(), strict=False)
        one, two = next((pair for pair in rows if pair[0] != pair[1]), ("", ""))
        said = f"two runs disagree: {one[:60]!r} and then {two[:60]!r}. Seed what is random"
        raise ProofError(said, file=page.file, line=chunks[0].line)
    return len(chunks)
