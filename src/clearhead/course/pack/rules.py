"""Rules for each kind of item, checked before anything runs: sections, programs, names, no hand-typed numbers."""

import ast
import builtins
import keyword
import re
from collections.abc import Mapping

from clearhead.course.pack.item import Item, Section
from clearhead.errors import PackError

# kind -> (sections it needs, roles it needs, roles it may have). Every kind may have `setup`, `figure` and prose.
NEEDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "card": (("Back",), (), ("proof", "answer")),
    "choice": (("Option",), ("check",), ("answer",)),
    "predict": ((), ("given", "distractor"), ("answer",)),
    "debug": ((), ("given", "patch", "tests"), ("answer",)),
    "tune": ((), ("sweep", "answer", "distractor"), ()),
    "worked": (("Step",), ("step",), ("answer",)),
    "explain": (
        ("Criterion",),
        ("exemplar", "paraphrase", "negated", "keywords"),
        ("proof", "answer"),
    ),
    "code": ((), ("starter", "solution", "tests", "mutant"), ("answer",)),
    "order": ((), ("step", "tests"), ("answer",)),
    "match": (("Pair",), ("pair",), ("answer",)),
}
EVERYWHERE = ("setup", "figure")
_OWN = {"Option": "choice", "Step": "worked", "Pair": "match", "Criterion": "explain", "Back": "card"}
_NUMBER = re.compile(r"(?<![\w.^_{/-])\d+(?:[.,]\d+)*(?![\w}])")
_FREE = re.compile(
    r"`[^`]*`|\{\{[^{}]*\}\}|\$[^$]*\$|```.*?```|~~~.*?~~~|\[[^\[\]]*\]\((?:[^()]|\([^()]*\))*\)", re.DOTALL
)
_CALL = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\(")
_USED = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\b(?!\()")  # without a call: as the target of an assignment, an argument …
_SHOWN = re.compile(r"\{\{\s*(\w+)[^{}]*\}\}")
_DEFINED = re.compile(r"\b(?:def|class) (\w+)")
_TEXT = re.compile(r"#[^\n]*|\"[^\"\n]*\"|'[^'\n]*'")
_PYTHON = frozenset((*keyword.kwlist, *dir(builtins)))


def check_item(item: Item, misconceptions: Mapping[str, str]) -> None:
    """Raise PackError, with the line, for the first part that is missing, misplaced or unknown."""
    sections, roles, more = NEEDS[item.kind]
    top = item.lines.get("kind", 1)
    for name in ("Stem", "Rule", *sections):
        if not item.named(name):
            raise _wrong(item, top, f"a {item.kind} item needs a section `## {name}`")
        if name in ("Stem", "Rule", "Back") and not item.named(name)[0].text:
            raise _wrong(item, item.named(name)[0].line, f"`## {name}` is empty")
    for role in roles:
        if not item.role(role):
            raise _wrong(item, top, f"a {item.kind} item needs a program ```python {role}")
    for program in item.programs:
        if program.role not in (*roles, *more, *EVERYWHERE):
            raise _wrong(item, program.line - 1, f"a {item.kind} item has no use for a `{program.role}` program")
    for section in item.sections:
        if section.name in _OWN and _OWN[section.name] != item.kind:
            raise _wrong(item, section.line, f"`## {section.name}` belongs to {_OWN[section.name]} items")
    if item.evidence == "definition" and not item.source:
        raise _wrong(item, item.lines.get("evidence", 1), 'evidence = "definition" needs a `source`')
    if item.kind == "card" and item.evidence == "program" and not item.first("proof"):
        raise _wrong(item, top, 'a card needs a `proof` program, or evidence = "definition" and a source')
    _check_names(item, misconceptions)
    _check_calls(item)
    _check_steps(item)
    for section in item.named("Stem"):
        _check_numbers(item, section)


def _wrong(item: Item, line: int, message: str) -> PackError:
    return PackError(message, file=item.file, line=line)


def _check_names(item: Item, misconceptions: Mapping[str, str]) -> None:
    """Check that misconceptions are declared in pack.toml and that each one used has a rationale."""
    used: dict[str, int] = {}
    for program in item.programs:
        name = program.misconception
        if name is None:
            if program.role in ("distractor", "mutant"):
                message = f"a {program.role} must name what it acts out: ```python {program.role} misconception=…"
                raise _wrong(item, program.line - 1, message)
            continue
        if name not in misconceptions:
            message = f"misconception {name!r} is not in pack.toml; add it under [misconceptions] with a sentence"
            raise _wrong(item, program.line - 1, message)
        if name in used and program.role != "mutant":
            raise _wrong(item, program.line - 1, f"misconception {name!r} is acted out twice (line {used[name]})")
        used.setdefault(name, program.line - 1)
    for name, line in used.items():
        if item.kind != "order" and not item.rationales.get(name):
            raise _wrong(item, line, f"no `## Rationale {name}`: every wrong option says why it is wrong")
    for section in item.named("Rationale"):
        if section.argument and section.argument not in used:
            raise _wrong(item, section.line, f"no program acts out {section.argument!r}")


def _check_calls(item: Item) -> None:
    """Check that a learner knows what the shown program calls: `setup` may define it, but nobody sees that."""
    given = item.first("given")
    if given is None:
        return
    source = _TEXT.sub(" ", given.source)
    defined = {*_DEFINED.findall(source), *_USED.findall(source)}
    known = {*re.findall(r"\w+", item.stem), *defined, *_PYTHON}
    for match in _CALL.finditer(source):
        if match[1] not in known:
            message = f"the program calls `{match[1]}`, which the learner does not see; say in the stem what it is"
            raise _wrong(item, given.line + source.count("\n", 0, match.start()), message)


def _check_steps(item: Item) -> None:
    """Check that a learner can work out each step from its prose, which names what `setup` set and tells no result."""
    steps = item.named("Step")
    words = {*re.findall(r"\w+", item.stem), *(word for step in steps for word in re.findall(r"\w+", step.text))}
    unseen = {name for program in item.role("setup") for name in _names(program.source, ast.Store)} - words
    results: set[str] = set()
    for program in item.role("step") if steps else ():
        results |= _names(program.source, ast.Store).keys()
        unseen -= results
        for name, line in _names(program.source, ast.Load).items():
            if name in unseen:
                message = (
                    f"the step uses `{name}`, which the learner does not see; say in the stem or the step what it is"
                )
                raise _wrong(item, program.line + line - 1, message)
    for step in steps:
        if shown := next((match for match in _SHOWN.finditer(step.text) if match[1] in results), None):
            message = f"{shown[0]} is the result of a step, which the learner may be asked for; describe it in words"
            raise _wrong(item, step.text_line + step.text.count("\n", 0, shown.start()), message)


def _names(source: str, context: type[ast.expr_context]) -> dict[str, int]:
    """Return the names that a program sets (Store, functions too) or reads (Load), each with its first line."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:  # the proof shows it, with its place
        return {}
    names = [(node.id, node.lineno) for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, context)]
    if context is ast.Store:
        names += [(node.name, node.lineno) for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    lines: dict[str, int] = {}
    for name, line in sorted(names, key=lambda pair: pair[1]):
        lines.setdefault(name, line)
    return lines


def _check_numbers(item: Item, section: Section) -> None:
    """Check that no number in a stem is typed by hand. Code spans, formulas and links may contain digits."""
    prose = _FREE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), section.text)
    match = _NUMBER.search(prose)
    if match:
        line = section.text_line + prose.count("\n", 0, match.start())
        message = (
            f"hand-typed number {match[0][:40]} in the stem; let a `setup` program set it and write {{{{name}}}}. "
            "Part of a program or a formula goes between backticks or dollar signs."
        )
        raise _wrong(item, line, message)
