"""Order options by hash, so that their order gives nothing away. All must differ and none may be empty."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Runner


def settle(runner: Runner, options: Sequence[tuple[Option, int]]) -> tuple[Option, ...]:
    """Give keys "a", "b" … in hash order. Each option comes with the line that made it.

    Raises:
        ProofError: two options are the same to a reader, or one is empty; at the later one's line.
    """
    seen: dict[str, int] = {}
    for option, line in options:
        text = " ".join(option.text.split())
        if not text:
            raise runner.wrong(line, "this option is empty; a program must print something")
        if text in seen:
            raise runner.wrong(
                line,
                f"this option is the same as the one of line {seen[text]}: {text[:80]}; each must say something else",
            )
        seen[text] = line
    item = runner.item

    def place(pair: tuple[Option, int]) -> str:
        return hashlib.sha256(f"{item.id}\0{pair[0].misconception or ''}\0{pair[0].text}".encode()).hexdigest()

    ordered = [option for option, _ in sorted(options, key=place)]
    return tuple(replace(option, key="abcdefghij"[at]) for at, option in enumerate(ordered))
