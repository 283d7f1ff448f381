"""How the work of a regular expression or a function grows with its input: counted, so no test depends on a clock."""

import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

GIVE_UP = 200_000  # steps


class Steps:
    """A backtracking matcher that counts how often it looks at a character: Python's own counts nothing.

    It backtracks as `re` does, without the shortcuts `re` may take; sets and single characters are asked of `re`.
    """

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.tree = parser.parse(pattern, flags)
        self.flags = self.tree.state.flags
        self.steps = 0
        self._sets: dict[int, dict[str, bool]] = {}

    def search_all(self, text: str, *, anchored: bool = False) -> int:
        """The steps that finding every match in the text takes; or, anchored, the one at its start."""
        self.text, self.steps, at = text, 0, 0
        while at <= (0 if anchored else len(text)) and self.steps < GIVE_UP:
            self.groups: dict[int, str] = {}
            end = next(self._run(list(self.tree), 0, at), None)
            at = at + 1 if end is None or end == at else end
        return self.steps

    def _run(self, nodes: list[Any], place: int, at: int) -> Iterator[int]:
        while place < len(nodes) and self.steps < GIVE_UP:
            self.steps += 1
            op, value = nodes[place]
            if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
                if not self._one(nodes[place], at):
                    return
                place, at = place + 1, at + 1
            elif op is sre.AT:
                if not self._at(value, at):
                    return
                place += 1
            else:
                for end in self._many(op, value, at):
                    yield from self._run(nodes, place + 1, end)
                return
        yield at

    def _many(self, op: Any, value: Any, at: int) -> Iterator[int]:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            yield from self._repeat(op, *value, at)
        elif op is sre.POSSESSIVE_REPEAT:
            yield from islice(self._repeat(sre.MAX_REPEAT, *value, at), 1)
        elif op is sre.ATOMIC_GROUP:
            yield from islice(self._run(list(value), 0, at), 1)
        elif op is sre.SUBPATTERN:
            for end in self._run(list(value[3]), 0, at):
                if value[0] is not None:
                    self.groups[value[0]] = self.text[at:end]
                yield end
        elif op is sre.BRANCH:
            for branch in value[1]:
                yield from self._run(list(branch), 0, at)
        elif op is sre.GROUPREF:
            if self.text.startswith(self.groups.get(value, ""), at):
                yield at + len(self.groups.get(value, ""))
        elif op in (sre.ASSERT, sre.ASSERT_NOT):
            start = at if value[0] > 0 else at - value[1].getwidth()[1]
            found = start >= 0 and next(self._run(list(value[1]), 0, start), None) is not None
            if found == (op is sre.ASSERT):
                yield at
        else:
            raise NotImplementedError(op)

    def _repeat(self, op: Any, least: int, most: Any, body: Any, at: int) -> Iterator[int]:
        most = len(self.text) + 1 if most is sre.MAXREPEAT else most
        if len(body) == 1 and body[0][0] in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            end, greedy = at, op is sre.MAX_REPEAT
            while True:
                if not greedy and end - at >= least:
                    yield end
                if end - at >= most or not self._one(body[0], end):
                    break
                end += 1
            if greedy:
                yield from range(end, at + least - 1, -1)
            return
        yield from self._repeat_group(op is sre.MAX_REPEAT, least, most, list(body), at)

    def _repeat_group(self, greedy: bool, least: int, most: int, body: list[Any], at: int) -> Iterator[int]:
        """Without recursion a round: a stack of the rounds that can still be tried otherwise."""
        rounds, ends = [self._run(body, 0, at)], [at]
        if not greedy and least == 0:
            yield at
        while rounds:
            end = next(rounds[-1], None) if len(rounds) <= most else None
            if end is None or end == ends[-1]:
                rounds.pop()
                done = ends.pop()
                if greedy and len(ends) >= least:
                    yield done
                continue
            ends.append(end)
            rounds.append(self._run(body, 0, end))
            if not greedy and len(ends) - 1 >= least:
                yield end

    def _one(self, node: Any, at: int) -> bool:
        self.steps += 1
        if at >= len(self.text):
            return False
        known, char = self._sets.setdefault(id(node), {}), self.text[at]
        if char not in known:
            known[char] = _matches(node, char, self.flags)
        return known[char]

    def _at(self, where: Any, at: int) -> bool:
        text, several = self.text, self.flags & re.MULTILINE
        if where is sre.AT_BEGINNING:
            return at == 0 or bool(several and text[at - 1] == "\n")
        if where is sre.AT_BEGINNING_STRING:
            return at == 0
        if where is sre.AT_END:
            return at >= len(text) - (text[-1:] == "\n") or bool(several and text[at] == "\n")
        if where is sre.AT_END_STRING:
            return at == len(text)
        sides = [0 <= place < len(text) and (text[place].isalnum() or text[place] == "_") for place in (at - 1, at)]
        return (sides[0] != sides[1]) == (where is sre.AT_BOUNDARY)


def _matches(node: Any, char: str, flags: int) -> bool:
    op, value = node
    if op is sre.ANY:
        return char != "\n" or bool(flags & re.DOTALL)
    if op in (sre.LITERAL, sre.NOT_LITERAL):
        same = ord(char) == value or bool(flags & re.IGNORECASE and char.lower() == chr(value).lower())
        return same == (op is sre.LITERAL)
    negated = value[0][0] is sre.NEGATE
    lower = {char, char.lower(), char.upper()} if flags & re.IGNORECASE else {char}
    return any(_in(part, one) for part in value[negated:] for one in lower if len(one) == 1) != negated


def _in(part: Any, char: str) -> bool:
    op, value = part
    if op is sre.LITERAL:
        return ord(char) == value
    if op is sre.RANGE:
        return bool(value[0] <= ord(char) <= value[1])
    kinds = {"SPACE": r"\s", "DIGIT": r"\d", "WORD": r"\w"}
    name = str(value).removeprefix("CATEGORY_")
    return bool(re.fullmatch(kinds[name.removeprefix("NOT_")], char)) != name.startswith("NOT_")


class Calls:
    """Counts, within a `with` block, how many Python and C functions are called, resumed generators too."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Calls":
        self._before = sys.getprofile()
        sys.setprofile(self._counted)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _counted(self, _frame: object, event: str, _argument: object) -> None:
        self.count += event in ("call", "c_call")


def calls(work: Callable[[], object]) -> int:
    """How many functions the work calls."""
    with Calls() as made:
        work()
    return made.count
