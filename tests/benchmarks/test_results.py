"""The figures in README.md are those of the tables in bench/results."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# How README.md quotes a sweep: the lowest and the median ratio, and its cases where it gives them.
QUOTED = {
    "sweep-zen4.md": r"more: (?P<lowest>\S+)× and (?P<median>\S+)× on Zen 4 \(\[(?P<cases>[\d,]+) cases\]",
    "sweep-avx2-on-zen4.md": r"; (?P<lowest>\S+)× and (?P<median>\S+)× on the same CPU held to AVX2",
}
WORK = ("forward float32", "forward bfloat16", "backward float32", "backward bfloat16")
COLUMNS = {"zen3.md": 1, "zen4.md": 2, "skylake.md": 3}  # of README's table of speed-ups


def table(name: str) -> str:
    return (ROOT / "bench" / "results" / name).read_text(encoding="utf-8")


def readme_row(work: str) -> list[str]:
    row = re.search(rf"^\| {re.escape(work)}.*\|$", README, re.M)
    assert row is not None
    return [cell.strip() for cell in row[0].strip("|").split("|")]


def mean(text: str, work: str) -> str:
    """The geometric mean of a piece of work beside torch's function."""
    return str(re.search(rf"^\| {re.escape(work)} \| sdpa \| ([\d.]+×) \|$", text, re.M)[1])


@pytest.mark.parametrize("name", QUOTED)
def test_the_readme_quotes_the_sweep_as_it_is(name: str) -> None:
    text = table(name)
    match = re.search(QUOTED[name], " ".join(README.split()))
    assert match is not None
    rows = [
        [cell.strip() for cell in line.split("|")] for line in text.splitlines() if re.match(r"\| (b?float)\d+, ", line)
    ]
    sweep = {
        "cases": re.search(r"^([\d,]+) of \1 cases", text, re.M)[1],
        "median": re.search(r"median ([\d.]+)×", text)[1],
        "lowest": min((row[6] for row in rows if len(row) > 10 and row[6] != "–"), key=float),
    }
    assert match.groupdict() == {key: sweep[key] for key in match.groupdict()}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("work", WORK)
def test_the_readme_quotes_the_geometric_means_as_they_are(work: str, name: str) -> None:
    quoted = readme_row(work)[COLUMNS[name]]
    assert quoted == ", ".join(mean(table(name), f"{work}, {mask}") for mask in ("full", "causal"))


@pytest.mark.parametrize("name", COLUMNS)
def test_the_readme_quotes_decoding_and_windows_as_they_are(name: str) -> None:
    text, column = table(name), COLUMNS[name]
    assert readme_row("decoding one query")[column] == ", ".join(
        mean(text, f"decode {d}") for d in ("float32", "bfloat16")
    )
    assert readme_row("a window of 256")[column] == mean(text, "masked forward float32, window of 256")


@pytest.mark.parametrize("work", ["forward float32", "forward bfloat16", "backward bfloat16"])
def test_the_readme_quotes_the_means_of_tiles_as_they_are(work: str) -> None:
    rows = re.findall(rf"^\| {work}, (?:full|causal) \|.*?\| ([\d.]+) \| [\d.]+ \|$", table("emerald-rapids.md"), re.M)
    assert readme_row(work)[4] == ", ".join(f"{mean}×" for mean in rows)
