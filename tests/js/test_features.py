"""No script and no style uses what one of the three engines lacks (Chromium 120, Firefox 128, WebKit 2.44 / Safari 17.4).

The modules are parsed, so that a word in a text or a comment is no finding. Each feature is one line below: add what
breaks next.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_javascript
from tree_sitter import Language, Node, Parser, Query, QueryCursor

SRC = Path(__file__).parents[2] / "src" / "clearhead"
BUNDLE = "codemirror.js"  # of npm packages, for engines of 2022 (editor/package.json)
MODULES = sorted(file for file in SRC.glob("*/static/*.js") if file.name != BUNDLE)
STYLES = sorted(SRC.glob("*/static/*.css"))
_JAVASCRIPT = Language(tree_sitter_javascript.language())

# What a node must look like, as a query of tree-sitter, and what is missing where.
SYNTAX = {
    "for await over a stream: WebKit's ReadableStream is not iterable; use jsonLines or getReader()": (
        '(for_in_statement "await" right: [(identifier) (member_expression)] @bad)'
    ),
    "import … with: no attributes before Firefox 138": "(import_attribute) @bad",
    "a regular expression with flag v: too new": '((regex_flags) @bad (#match? @bad "v"))',
    "a look-behind or a modifier in a regular expression: too new": (
        '((regex_pattern) @bad (#match? @bad "[(][?](<[=!]|[ims-]+:)"))'
    ),
    "a decorator: no engine has it": "(decorator) @bad",
    "using: no engine but Chromium": '((identifier) @bad (#eq? @bad "using"))',
}
# Properties and globals by name, whatever they are a property of.
NAMES = {
    "fromAsync": "Array.fromAsync",
    "groupBy": "Object.groupBy, Map.groupBy",
    "withResolvers": "Promise.withResolvers",
    "waitUntilIdle": "no engine",
    "scheduler": "Firefox before 142 and WebKit",
    "navigation": "the Navigation API: Firefox before 147",
    "requestIdleCallback": "WebKit",
    "showOpenFilePicker": "Chromium alone",
    "showSaveFilePicker": "Chromium alone",
    "setHTMLUnsafe": "too new",
    "startViewTransition": "Firefox before 144",
    "moveBefore": "WebKit",
    "CloseWatcher": "Chromium alone",
    "Temporal": "WebKit",
    "Float16Array": "Chromium before 135",
    "toBase64": "Uint8Array: Chromium before 140",
    "fromBase64": "Uint8Array: Chromium before 140",
    "escapeHTML": "no engine",
    "focusVisible": "WebKit: focus({ focusVisible })",
    "scrollend": "WebKit before 26",
    "CookieStore": "Firefox before 140",
    "cookieStore": "Firefox before 140",
    "captureStream": "WebKit",
    "OffscreenCanvasRenderingContext2D": "not everywhere",
    "isSubsetOf": "Set's methods: Firefox before 127",
    "union": "Set's methods: Firefox before 127",
    "intersection": "Set's methods: Firefox before 127",
    "symmetricDifference": "Set's methods: Firefox before 127",
}
STATICS = {("Promise", "try"), ("Iterator", "from"), ("Iterator", "concat"), ("RegExp", "escape"), ("Math", "sumPrecise"),
           ("Error", "isError"), ("Intl", "DurationFormat"), ("URLPattern", "prototype")}  # fmt: skip
# Methods of arrays that iterators have only lately: `values().map(…)`.
LAZY = {"map", "filter", "take", "drop", "flatMap", "reduce", "toArray", "forEach", "some", "every", "find"}
ITERATORS = {"values", "keys", "entries", "matchAll"}

# Properties, values, at-rules and selectors of style sheets. A pattern is searched in a sheet without its comments.
STYLE = {
    r"hanging-punctuation\s*:": "WebKit alone, and inherited by formulas and programs",
    r"field-sizing\s*:": "Chromium and WebKit",
    r"\banchor-name\s*:|position-anchor\s*:|\banchor\(|position-area\s*:": "anchor positioning: Firefox before 147",
    r"text-decoration\s*:\s*\w+\s+[^;}]": "WebKit reads one word in the shorthand: use text-decoration-line, -style, -color",
    r"@scope\b": "Firefox before 146",
    r"@function\b|\bif\(": "Chromium alone",
    r"interpolate-size\s*:|calc-size\(": "Chromium alone",
    r"animation-timeline\s*:|scroll-timeline": "Firefox",
    r"text-box(-trim|-edge)?\s*:": "Firefox",
    r"corner-shape\s*:": "Chromium alone",
    r"appearance\s*:\s*base-select|::picker\(": "Chromium alone",
    r"@starting-style\b|transition-behavior": "Firefox before 129",
    r"reading-flow\s*:|overlay\s*:": "Chromium alone",
    r"::(scroll-button|scroll-marker|details-content)": "not everywhere",
    r"sibling-(index|count)\(": "Firefox",
    r"\bzoom\s*:": "Firefox before 126",
    r"-webkit-line-clamp": "a property of old drafts",
}


def parsed(source: bytes) -> Node:
    return Parser(_JAVASCRIPT).parse(source).root_node


def found_in(source: bytes) -> Iterator[str]:
    """What a module uses that an engine lacks, with its line."""
    root = parsed(source)
    if root.has_error:
        yield "it cannot be parsed: newer syntax than the parser knows"
    for about, pattern in SYNTAX.items():
        for node in QueryCursor(Query(_JAVASCRIPT, pattern)).captures(root).get("bad", []):
            yield f"line {node.start_point.row + 1}: {about}"
    for node in nodes(root):
        text = (node.text or b"").decode()
        if node.type in ("property_identifier", "identifier") and text in NAMES:
            yield f"line {node.start_point.row + 1}: {text}: {NAMES[text]}"
        if node.type == "member_expression":
            owner, name = node.child_by_field_name("object"), node.child_by_field_name("property")
            if owner and name and owner.text and name.text:
                if (owner.text.decode(), name.text.decode()) in STATICS:
                    yield f"line {node.start_point.row + 1}: {text} is too new"
                if name.text.decode() in LAZY and calls(owner) in ITERATORS:
                    yield f"line {node.start_point.row + 1}: a helper of iterators; spread into an array first"


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def calls(node: Node) -> str:
    """The method that an expression calls without a static owner: "values" of `map.values()`."""
    if node.type != "call_expression":
        return ""
    function = node.child_by_field_name("function")
    name = function.child_by_field_name("property") if function else None
    owner = function.child_by_field_name("object") if function else None
    return name.text.decode() if name and name.text and owner and owner.text != b"Object" else ""


def styles_in(source: str) -> Iterator[str]:
    """What a style sheet uses that an engine lacks."""
    plain = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    for pattern, about in STYLE.items():
        for hit in re.finditer(pattern, plain):
            yield f"{hit[0]}: {about}"
    for rule in re.finditer(r"[^{}]*\{[^{}]*\}", plain):
        body = rule[0]
        if re.search(r"(?<!-)user-select\s*:", body) and "-webkit-user-select" not in body:
            yield f"user-select without -webkit-user-select: {body.strip()[:60]}"
        if re.search(r"(?<!-)print-color-adjust\s*:", body) and "-webkit-print-color-adjust" not in body:
            yield f"print-color-adjust without -webkit-print-color-adjust: {body.strip()[:60]}"
    for hit in re.finditer(r"@media\s*([^{]*prefers-color-scheme:\s*dark[^{]*)", plain):
        if "screen" not in hit[1]:
            yield f"a dark style for every medium, paper too: @media {hit[1].strip()}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parents[1].name}/{path.name}")
def test_no_module_uses_what_an_engine_lacks(module: Path) -> None:
    assert list(found_in(module.read_bytes())) == []


@pytest.mark.parametrize("sheet", STYLES, ids=lambda path: f"{path.parents[1].name}/{path.name}")
def test_no_style_uses_what_an_engine_lacks(sheet: Path) -> None:
    assert list(styles_in(sheet.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "for await (const part of body) x(part);",
        "for await (const part of reply.body) x(part);",
        "import data from './a.json' with { type: 'json' };",
        "const r = /[\\p{L}--[a-z]]/v;",
        "const r = /(?<=a)b/;",
        "Array.fromAsync(x);",
        "await Promise.try(f);",
        "map.values().map((one) => one).toArray();",
        "text.matchAll(/a/g).map(f);",
        "Iterator.from(x);",
        "scheduler.yield();",
        "navigation.navigate('/');",
        "Object.groupBy(list, f);",
        "a.focus({ focusVisible: true });",
    ],
)
def test_the_lint_sees(source: str) -> None:
    assert list(found_in(source.encode()))


@pytest.mark.parametrize(
    "source",
    [
        "for await (const line of jsonLines(reply.body)) x(line);",
        "[...map.values()].map(f);",
        "Object.values(x).map(f);",
        "const text = 'navigation: for await (const a of b)'; // scheduler, Promise.try",
        "const r = /(?:a)(?=b)(?!c)/gi;",
    ],
)
def test_the_lint_lets_through(source: str) -> None:
    assert list(found_in(source.encode())) == []


@pytest.mark.parametrize(
    "source",
    [
        "body { hanging-punctuation: first; }",
        "a { text-decoration: underline dotted var(--muted); }",
        "textarea { field-sizing: content; }",
        "svg { user-select: none; }",
        "@media (prefers-color-scheme: dark) { a { color: red; } }",
        ".x { position-anchor: --a; }",
    ],
)
def test_the_lint_sees_in_a_style(source: str) -> None:
    assert list(styles_in(source))
