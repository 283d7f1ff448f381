"""Figures drawn by programs: an item's `figure` program runs after the programs that set the answer."""

import re
from xml.etree import ElementTree

from clearhead.course.pack.item import Program
from clearhead.course.proofs.figure_limits import excess
from clearhead.course.proofs.runner import Job, Runner
from clearhead.sandbox import Chunk

LARGEST = 100_000  # characters; the sandbox cuts a value there
_ELEMENTS = frozenset(
    {"svg", "g", "defs", "title", "desc", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text",
     "tspan", "use", "symbol", "marker", "clipPath", "linearGradient", "radialGradient", "stop", "pattern", "style"}
)  # fmt: skip
_METADATA = ("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://creativecommons", "{http://purl.org")
_OUTSIDE = re.compile(r"url\((?!\s*['\"]?#)|@import|javascript:")
# If the program sets no `svg`, save the open matplotlib figure, without date and random ids, so that two runs agree.
TAKE_SVG = Chunk(
    """if "svg" not in globals():
    import io as __io
    import matplotlib as __m
    import matplotlib.pyplot as __p
    __m.rcParams["svg.hashsalt"] = "clearhead"
    svg = ""
    if __p.get_fignums():
        __out = __io.StringIO()
        __p.gcf().savefig(__out, format="svg", metadata={"Date": None, "Creator": None})
        __p.close("all")
        svg = __out.getvalue()
        svg = svg[svg.index("<svg"):]
""",
    "figure",
)


_WANT = (("svg", ""),)


def drawing(runner: Runner, *programs: Program | Chunk) -> tuple[Job, ...]:
    """Return the job that draws after these programs, to run in advance; none if the item has no figure program."""
    figure = runner.item.first("figure")
    return (Job((*programs, figure, TAKE_SVG), _WANT),) if figure else ()


def draw(runner: Runner, *programs: Program | Chunk) -> str:
    """Run the item's figure program after these; return a safe SVG, or "" without a figure program.

    Raises:
        ProofError: it draws nothing, or something that is unsafe in a page; at its line.
    """
    figure = runner.item.first("figure")
    if figure is None:
        return ""
    run = runner.must_run(*programs, figure, TAKE_SVG, want=_WANT)
    svg = run.values.get("svg", "")
    if not svg:
        raise runner.wrong(
            figure.line, "the figure program draws nothing; set `svg`, or leave a matplotlib figure open"
        )
    why = unsafe(svg)
    if why:
        raise runner.wrong(figure.line, f"the figure {why}")
    return svg


def unsafe(svg: str) -> str:
    """Return why this SVG is unsafe in a page; "" if it is safe.

    >>> unsafe('<svg xmlns="http://www.w3.org/2000/svg"><circle r="2"/></svg>')
    ''
    >>> unsafe('<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>')
    'holds a <script>, which a picture does not need'
    """
    if len(svg) >= LARGEST:
        return f"is more than {LARGEST:,} characters; draw less"
    if not svg.lstrip().startswith("<svg") or "<!" in svg.replace("<!--", ""):
        return "is not an SVG text that begins with <svg"
    try:
        root = ElementTree.fromstring(svg)  # noqa: S314 — no doctype, so no entities; and at most LARGEST long
    except ElementTree.ParseError as error:
        return f"is not well-formed: {str(error)[:200]}"
    why = excess(root)
    if why:
        return why
    for element in root.iter():
        name = str(element.tag).rpartition("}")[2]
        if name not in {*_ELEMENTS, "metadata"} and not str(element.tag).startswith(_METADATA):
            return f"holds a <{name[:40]}>, which a picture does not need"
        for key, value in element.attrib.items():
            attribute = key.rpartition("}")[2].lower()
            if attribute.startswith("on") or (attribute == "href" and not value.startswith("#")):
                return f"holds the attribute {attribute[:40]}={value[:40]!r}"
        if _OUTSIDE.search(f"{element.text or ''} {' '.join(element.attrib.values())}"):
            return "refers to something outside itself"
    return ""
