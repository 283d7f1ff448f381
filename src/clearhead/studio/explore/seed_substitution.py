"""Substitute the numbers that a seed drew into a program's source.

A question with variants draws its numbers in `setup`, as in `n = random.Random(seed).choice([3, 5]) if seed else 4`.
A reader of the whole program needs the 4, not how other numbers would be drawn.
"""

import ast
import random
import re
from dataclasses import dataclass, replace

SEED = "seed"


@dataclass(frozen=True)
class _Part:
    """A statement, its text, and the lines between it and the one before."""

    gap: str
    text: str
    statement: ast.stmt


def with_seed_substituted(source: str, seed: int) -> str:
    r"""Return the program with the seed's number instead of its name, without code that only draws numbers.

    >>> source = "import random\n\nn = random.Random(seed).choice([3, 5]) if seed else 4\nprint(n)  # odd?\n"
    >>> print(with_seed_substituted(source, 0))
    n = 4
    print(n)  # odd?
    >>> print(with_seed_substituted("import random\n\ndraw = random.Random(seed)\nn, k = draw.random(), seed\n", 1))
    import random
    <BLANKLINE>
    draw = random.Random(1)
    n, k = (draw.random(), 1)
    """
    if not _asks_for_seed(source):
        return f"{SEED} = {seed}\n{source}" if re.search(rf"\b{SEED}\b", source) else source
    parts = _without_drawing(_parts(source, seed))
    text = "".join(f"{part.gap}{part.text}" for part in parts)
    return re.sub(r"\n{4,}", "\n\n\n", text).strip("\n")


def _asks_for_seed(source: str) -> bool:
    """Return whether the source parses, uses `seed`, and never assigns it."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return False
    named = [node for node in nodes if isinstance(node, ast.Name) and node.id == SEED]
    own = any(not isinstance(node.ctx, ast.Load) for node in named)
    return bool(named) and not own and not any(isinstance(node, ast.arg) and node.arg == SEED for node in nodes)


def _parts(source: str, seed: int) -> list[_Part]:
    """Return each statement with its text, unchanged where the seed does not affect it."""
    parts: list[_Part] = []
    lines, at = source.splitlines(keepends=True), 0
    for statement in ast.parse(source).body:
        first = min([statement.lineno, *(node.lineno for node in getattr(statement, "decorator_list", ()))]) - 1
        gap, text = "".join(lines[at:first]), "".join(lines[first : statement.end_lineno])
        at = statement.end_lineno or at
        written = ast.dump(statement)
        made = _Seeded(seed).visit(statement)
        for node in made if isinstance(made, list) else [made]:
            parts.append(_Part(gap, text if ast.dump(node) == written else f"{ast.unparse(node)}\n", node))
            gap = ""
    return parts


def _without_drawing(parts: list[_Part]) -> list[_Part]:
    """Return the parts without `draw = random.Random(0)` and `import random` if nothing is drawn any more."""
    for drawing in (r"(\w+) = random\.Random\(\d+\)", r"import (random)"):
        used = {node.id for part in parts for node in ast.walk(part.statement)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}  # fmt: skip
        kept: list[_Part] = []
        gap = ""
        for part in parts:
            drawn = re.fullmatch(drawing, ast.unparse(part.statement))
            if drawn and drawn[1] not in used:
                gap = max(gap, part.gap, key=len)
            else:
                kept.append(replace(part, gap=max(gap, part.gap, key=len)))
                gap = ""
        parts = kept
    return parts


class _Seeded(ast.NodeTransformer):
    """Replaces the seed by its number, keeps the branch that an `if` takes, and replaces draws by their results."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(self.seed) if node.id == SEED and isinstance(node.ctx, ast.Load) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        taken = self._taken(node.test)
        return self.generic_visit(node) if taken is None else self.visit(node.body if taken else node.orelse)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        taken = self._taken(node.test)
        if taken is None:
            return self.generic_visit(node)
        made = [self.visit(node) for node in (node.body if taken else node.orelse)]
        return [statement for node in made for statement in (node if isinstance(node, list) else [node])]

    def visit_While(self, node: ast.While) -> ast.AST | list[ast.stmt]:
        return [] if self._taken(node.test) is False and not node.orelse else self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        asked = re.match(r"random\.Random\(seed\)\.(choice|sample|randint|randrange)\(", ast.unparse(node))
        if not asked or node.keywords:
            return self.generic_visit(node)
        try:
            given = [ast.literal_eval(argument) for argument in node.args]
            drawn = getattr(random.Random(self.seed), asked[1])(*given)  # noqa: S311 — what the program draws
        except (ValueError, TypeError, IndexError):
            return self.generic_visit(node)
        return ast.parse(repr(drawn), mode="eval").body

    def _taken(self, test: ast.expr) -> bool | None:
        """Return the value of `seed`, `not seed`, `seed == 0`, False for an `and` with a false one; else None."""
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) and self._taken(test.values[0]) is False:
            return False
        asked = ast.unparse(test)
        return {SEED: bool(self.seed), f"not {SEED}": not self.seed, f"{SEED} == 0": self.seed == 0}.get(asked)
