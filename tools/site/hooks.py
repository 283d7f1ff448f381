"""MkDocs hooks of the site: pages from files outside docs/, the reference from docstrings, drawn figures.

The navigation reads the reference and the decisions from the lists in their README.md, so each page is listed once.
"""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
import figures
import live
import public

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "live"  # drawn once; `make docs` draws again what is older than the sources
# Site page -> its file outside docs/.
ELSEWHERE = {
    "benchmarks/README.md": "bench/README.md",
    "benchmarks/LOG.md": "bench/LOG.md",
    "benchmarks/zen3.md": "bench/results/zen3.md",
    "benchmarks/zen4.md": "bench/results/zen4.md",
    "benchmarks/emerald-rapids.md": "bench/results/emerald-rapids.md",
    "benchmarks/skylake.md": "bench/results/skylake.md",
    "benchmarks/sweep.md": "bench/results/sweep.md",
    "benchmarks/sweep-emerald-rapids.md": "bench/results/sweep-emerald-rapids.md",
    "benchmarks/sweep-skylake.md": "bench/results/sweep-skylake.md",
    "benchmarks/sweep-zen4.md": "bench/results/sweep-zen4.md",
    "benchmarks/sweep-avx2-on-zen4.md": "bench/results/sweep-avx2-on-zen4.md",
    "benchmarks/sweep-avx512-on-zen4.md": "bench/results/sweep-avx512-on-zen4.md",
    "project/CHANGELOG.md": "CHANGELOG.md",
    "project/CONTRIBUTING.md": "CONTRIBUTING.md",
}
NOT_SEARCHED = set(ELSEWHERE) - {
    "benchmarks/README.md",
    "project/CHANGELOG.md",
    "project/CONTRIBUTING.md",
}  # rows of figures
ITEM = re.compile(r" *(?:[-*]|\d+\.) ")
LINK = re.compile(r"\[([^\]]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add the reference and the decisions to the navigation."""
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] = ["reference/README.md", *_listed("reference")]
        for entry in section.get("How it works", []) if isinstance(section, dict) else []:
            if "Decisions" in entry:
                entry["Decisions"] = ["decisions/README.md", *_listed("decisions")]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add pages from files elsewhere in the project, and the live figures."""
    for place, source in ELSEWHERE.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text("utf-8")))
    for path in live.draw(BUILT):
        files.append(File.generated(config, f"live/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Draw the figures of a page, and add the docstrings of the names on a reference page."""
    place = page.file.src_uri
    if place in NOT_SEARCHED:
        page.meta["search"] = {"exclude": True}
    if place in ELSEWHERE:
        markdown = _nested(markdown)
    markdown = figures.drawn(_led(markdown, place))
    markdown = re.sub(r"^\| (__\w+__) \|", r"| `\1` |", markdown, flags=re.M)  # Markdown takes it for bold
    if place.startswith("reference/"):
        markdown += public.from_docstrings(Path(place).stem)
    return markdown


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Give a table of figures that has no sections the room of its empty table of contents."""
    if page.file.src_uri in NOT_SEARCHED and not any(entry.children for entry in page.toc):
        page.meta["hide"] = ["toc"]
    return html


def _listed(folder: str) -> list[dict[str, str]]:
    """Title -> page, in the order of the folder's own list."""
    text = (ROOT / "docs" / folder / "README.md").read_text("utf-8")
    entries = re.findall(r"^- \[(.+?)\]\((\S+?\.md)\)", text, re.M)
    return [{title.removeprefix("clearhead.").replace("`", ""): f"{folder}/{name}"} for title, name in entries]


def _nested(text: str) -> str:
    """The text with its lists as Python-Markdown reads them: GitHub nests by two spaces, and this by four.

    A blank line is needed between text and a list below it, and where an outer list goes on after an inner one.
    """
    rows: list[str] = []
    fenced, level = False, 0  # of the last item
    for row in text.split("\n"):
        indent = _indent(row)
        fenced ^= row.lstrip().startswith("```")
        if not fenced and ITEM.match(row):
            before = rows[-1] if rows else ""
            after_text = before.strip() and not ITEM.match(before) and _indent(before) == 2 * indent
            if after_text or indent < level:
                rows.append("")
            level = indent
        rows.append(" " * indent + row)
    return "\n".join(rows)


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip(" "))


def _led(text: str, place: str) -> str:
    """The text of a page with its links as the site has them; a file that is no page is named, not linked."""
    source = ROOT / ELSEWHERE.get(place, f"docs/{place}")
    pages = {ROOT / file: page for page, file in ELSEWHERE.items()}
    up = "../" * place.count("/")

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = (source.parent / target).resolve()
        if "://" in target or not path.is_relative_to(ROOT):
            return match[0]
        if path in pages:
            return f"[{words}]({up}{pages[path]}{anchor})"
        if path.is_relative_to(ROOT / "docs"):
            return f"[{words}]({up}{path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        return words

    return LINK.sub(link, text)
