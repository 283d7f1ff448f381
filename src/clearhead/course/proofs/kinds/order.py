"""Prove an order item: try every order of the steps. Those that pass the tests are right; not all may pass."""

import hashlib
import math
from typing import Any

from clearhead.course.pack.item import Item
from clearhead.course.proofs.proved import Step
from clearhead.course.proofs.runner import Job, Runner, chunk_of, fence, setup_chunks
from clearhead.sandbox import Chunk

MOST_STEPS = 6  # 720 orders
# Runs every order in a fresh namespace after `setup`. The names of this code begin with two underscores.
_TRY = """
def __try():
    import contextlib, io, itertools
    passing = []
    for order in itertools.permutations(range(len(__steps))):
        space = {"__name__": "__main__", "seed": seed}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                for source in [*__setup, *(__steps[at] for at in order), __tests]:
                    exec(source, space)
        except Exception:
            continue
        passing.append("".join(map(str, order)))
    return " ".join(passing)
__passing = __try()
"""


def prove_order(runner: Runner) -> dict[str, Any]:
    """Try every order of the steps."""
    item = runner.item
    steps, tests = item.role("step"), item.role("tests")[0]
    if not 3 <= len(steps) <= MOST_STEPS:
        raise runner.wrong(item.lines["kind"], f"{len(steps)} steps; an order item has 3 to {MOST_STEPS}")
    texts = [step.source.strip() for step in steps]
    for at, text in enumerate(texts):
        if text in texts[:at]:
            raise runner.wrong(steps[at].line, "this step is the same as an earlier one")
    parts = (
        f"__setup = {[program.source for program in item.role('setup')]!r}\n"
        f"__steps = {[step.source for step in steps]!r}\n__tests = {tests.source!r}\n"
    )
    every, want = Chunk(parts + _TRY, "orders"), (("__passing", ""),)
    runner.ahead(Job((*item.role("answer"), *steps, tests)), Job((every,), want))
    values = runner.values(runner.must_run(*item.role("answer"), *steps, tests))
    run = runner.must_run(every, want=want)
    passing = run.values["__passing"].split()
    right = "".join(str(at) for at in range(len(steps)))
    if right not in passing:
        raise runner.wrong(
            tests.line, "the written order passes only together with what ran before; set it up in `setup`"
        )
    if len(passing) == math.factorial(len(steps)):
        raise runner.wrong(tests.line, "every order passes; the tests do not need one")
    keys = _keys(item, texts)
    orders = tuple(tuple(keys[int(at)] for at in order) for order in sorted(passing))
    shown = [Step(key, fence(text, "python"), text) for key, text in sorted(zip(keys, texts, strict=True))]
    answer = fence("\n".join(texts), "python")
    return {"steps": tuple(shown), "orders": orders, "answer": answer, "values": values, "tests": tests.source}


def _keys(item: Item, texts: list[str]) -> list[str]:
    """Return a letter for each step, by hash, so that the letters say nothing about the order."""
    ranked = sorted(texts, key=lambda text: hashlib.sha256(f"{item.id}\0{text}".encode()).hexdigest())
    return ["abcdef"[ranked.index(text)] for text in texts]


def replay(item: Item, seed: int, codes: list[str]) -> list[Chunk]:
    """Return the chunks that run a learner's order, to show what happens."""
    program = Chunk("\n".join(codes) + "\n", "your order")
    return [*setup_chunks(item, seed), program, chunk_of(item.role("tests")[0], item)]
