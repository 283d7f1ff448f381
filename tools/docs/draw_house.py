"""Draw the rooms of the package and what they import, from the imports themselves.

    python tools/docs/draw_house.py           print the drawing (Mermaid) and the table
    python tools/docs/draw_house.py --write   put them into docs/design.md, between its markers

A room is a package or module directly inside `clearhead`. An arrow is left out if it follows from two others.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design.md"
BEGIN, END = "<!-- drawn by tools/docs/draw_house.py -->", "<!-- end of the drawing -->"

Edges = dict[str, set[str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the drawing into docs/design.md")
    text = drawing(grimp.build_graph("clearhead", cache_dir=None, exclude_type_checking_imports=True))
    if not parser.parse_args().write:
        print(text)
        return 0
    begun, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{begun}{BEGIN}\n{text}\n{END}{after}")
    return 0


def drawing(graph: grimp.ImportGraph) -> str:
    """Return the flow chart and the table, in Markdown."""
    files = defaultdict(list)
    for module in graph.modules - {"clearhead"}:
        files[room_of(module)].append(module)
    arrows: Edges = {room: set() for room in files}
    for module in graph.modules - {"clearhead"}:
        for imported in graph.find_modules_directly_imported_by(module) - {"clearhead"}:
            if room_of(imported) != room_of(module):
                arrows[room_of(module)].add(room_of(imported))
    floors = stack(arrows)
    lines = ["```mermaid", "flowchart TD"]
    for floor in floors:
        lines += [f"  subgraph floor{floors.index(floor)}[ ]", *(f"    {room}" for room in floor), "  end"]
    lines += [f"  {room} --> {below}" for room, targets in sorted(reduced(arrows).items()) for below in sorted(targets)]
    lines += ["```", "", "| room | files | lines | circles of imports inside | imports |", "|---|---|---|---|---|"]
    for room in (room for floor in floors for room in sorted(floor)):
        inside = {m: set(graph.find_modules_directly_imported_by(m)) & set(files[room]) for m in files[room]}
        sizes = [len(circle) for circle in circles(inside)]
        lines.append(
            f"| {room} | {len(files[room])} | {sum(length(m) for m in files[room])} "
            f"| {', '.join(f'{size} files' for size in sizes) or 'none'} | {', '.join(sorted(arrows[room]))} |"
        )
    return "\n".join(lines)


def room_of(module: str) -> str:
    return module.split(".")[1]


def length(module: str) -> int:
    """Return the number of lines of a module's file."""
    path = ROOT / "src" / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text().count("\n")


def circles(edges: Edges) -> list[list[str]]:
    """Return the groups of nodes that reach one another, largest first.

    >>> circles({"a": {"b"}, "b": {"a"}, "c": {"a"}})
    [['a', 'b']]
    """
    reach = {node: reachable(edges, node) for node in edges}
    groups = {tuple(sorted(n for n in reach[node] if node in reach[n])) for node in edges if node in reach[node]}
    return sorted((list(group) for group in groups), key=len, reverse=True)


def reachable(edges: Edges, start: str) -> set[str]:
    """Return all nodes that a path of one or more edges leads to."""
    seen: set[str] = set()
    waiting = list(edges.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += edges.get(node, ())
    return seen


def stack(edges: Edges) -> list[list[str]]:
    """Return the floors from the top down: each room is above all rooms it imports. Rooms of a circle share a floor."""
    reach = {node: reachable(edges, node) for node in edges}

    def height(node: str) -> int:
        below = [n for n in edges[node] if node not in reach[n]]
        return 1 + max(map(height, below), default=-1)

    floors = defaultdict(list)
    for node in sorted(edges):
        floors[height(node)].append(node)
    return [floors[level] for level in sorted(floors, reverse=True)]


def reduced(edges: Edges) -> Edges:
    """Return the edges that do not follow from others.

    >>> reduced({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    {'a': {'b'}, 'b': {'c'}, 'c': set()}
    """
    return {
        node: {t for t in targets if not any(t in reachable(edges, other) for other in targets - {t})}
        for node, targets in edges.items()
    }


if __name__ == "__main__":
    sys.exit(main())
