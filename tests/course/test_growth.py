"""Ten times the input takes at most thirty times the steps: every regular expression, and grading itself."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the patterns are the studio's too: pip install 'clearhead[studio]'")

import clearhead
from clearhead.course import Criterion
from clearhead.course.grading.compare import same_output, same_result
from clearhead.course.rubric import ticks
from growth import Steps, calls

ROOT = Path(clearhead.__file__).parent
MOST = 30
PIECES = (
    *(
        "1",
        " ",
        "a",
        "-",
        "1 ",
        "1,",
        "[",
        "(",
        ")",
        "tensor(",
        "dtype=",
        ", dtype=",
        "1x",
        "1 x ",
        "1.",
        "1e",
        "Error",
    ),
    *("aError ", "\n", "\n ", "\n- ", "\t", "a. ", "not ", "divide ", "_", "'", "1'", "inf", "a:", "{a: ", "√", "’s"),
    *("StopIteration", "`", "```", "$", "{{", "{", "\\", "<", "|", ":", "~", "#"),
)


NAMES = ("match", "search", "fullmatch", "sub", "split", "findall", "finditer")
ANCHORED = {"match", "fullmatch"}
FLAGS = ("DOTALL", "MULTILINE", "IGNORECASE")


@dataclass(frozen=True)
class Written:
    """A pattern of ours; `anchored` where it is only tried at the start of a text."""

    where: str
    pattern: str
    flags: int
    anchored: bool

    def steps(self, text: str) -> int:
        return Steps(self.pattern, self.flags).search_all(text, anchored=self.anchored)


def patterns(room: str) -> Iterator[Written]:
    """Every pattern of a room: those its modules keep compiled, and those written out where they are used."""
    for file in sorted((ROOT / room).rglob("*.py")):
        path = file.relative_to(ROOT)
        module = importlib.import_module(".".join(("clearhead", *path.with_suffix("").parts)).removesuffix(".__init__"))
        source = file.read_text(encoding="utf-8")
        if "re." not in source and "compile" not in source:
            continue  # nothing to walk: a tenth of the files have patterns
        nodes = list(ast.walk(ast.parse(source)))
        used: dict[str, set[str]] = defaultdict(set)
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used[node.value.id].add(node.attr)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern) and f"\n{name}" in source:
                anchored = bool(used[name]) and used[name] <= ANCHORED
                yield Written(f"{path}:{name}", value.pattern, value.flags, anchored)
        for node in nodes:
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="re"), attr=name),
                    args=[ast.Constant(value=str() as written), *_],
                ) if name in NAMES:
                    flags = sum(getattr(re, flag) for flag in FLAGS if f"re.{flag}" in ast.unparse(node))
                    yield Written(f"{path}:{node.lineno}", written, flags, name in ANCHORED)


FOUND = [one for room in ("course", "studio") for one in patterns(room)]


def repeated(piece: str, length: int) -> str:
    """Return the piece repeated, between two characters that rarely match."""
    return "1" + (piece * length)[:length] + "\x00"


@pytest.mark.parametrize("one", FOUND, ids=lambda one: one.where)
def test_a_pattern_is_linear(one: Written) -> None:
    for piece in PIECES:
        few, many = (one.steps(repeated(piece, length)) for length in (20, 200))
        assert many <= MOST * few, f"{one.pattern} on {piece!r}, repeated"


@pytest.mark.parametrize("pattern", [r"a*b", r"\s+$", r"(a+)+c", r"(a|a)*c", r",?\s*x=", r"\n\s*\n\s*x"])
def test_the_counter_knows_slow_patterns(pattern: str) -> None:
    def grows(piece: str, few: int) -> bool:
        least, most = (Steps(pattern).search_all(repeated(piece, length)) for length in (few, 10 * few))
        return most > MOST * least

    assert any(grows(piece, few) for piece in ("a", " ", "\n") for few in (4, 30))


@pytest.mark.parametrize("one", FOUND, ids=lambda one: one.where)
def test_the_counter_finds_what_re_finds(one: Written) -> None:
    for text in ("aab", "x = 12, dtype=float", "a  b", "{{c1::x}}", "ValueError: x", "`a` $b$"):
        steps = Steps(one.pattern, one.flags)
        steps.text, steps.groups = text, {}
        found = re.compile(one.pattern, one.flags).match(text)
        assert next(steps._run(list(steps.tree), 0, 0), None) == (found.end() if found else None), text


RIGHTS = ("(the row would sum to, 0.9394)", "torch.Size([2, 3])", "2,362,368", "ValueError: scale must be positive")
CRITERIA = [Criterion("s", "x", (("divide", "scaled by"), ("square root", "sqrt")), without=("never divide",))]


@pytest.mark.parametrize("piece", PIECES)
def test_grading_is_linear(piece: str) -> None:
    def graded(text: str) -> None:
        for right in RIGHTS:
            same_output(text, right, 0.1, "ms")
            same_result(text, right, 0.1, "ms")
        ticks(text, CRITERIA)

    graded(repeated(piece, 1000))  # what is kept for the next time
    assert calls(lambda: graded(repeated(piece, 1000))) <= MOST * calls(lambda: graded(repeated(piece, 100)))
