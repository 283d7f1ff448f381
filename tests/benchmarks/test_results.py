"""The figures in README.md are those of the tables in bench/results."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# How README.md quotes a sweep: its cases, where it gives them, the median ratio, and the lowest, where it gives that.
QUOTED = {
    "sweep.md": r"(?P<cases>[\d,]+) shapes, masks and dtypes \(\[bench/results/sweep\.md\]\S+ \| median (?P<median>\S+)×",
    "sweep-zen4.md": r"of (?P<cases>[\d,]+) shapes, masks and dtypes the median is (?P<median>\S+)×, and the lowest (?P<lowest>\S+)×",
    "sweep-avx2-on-zen4.md": r"held to AVX2, as a stand-in for a Zen 3: (?P<median>\S+)× and (?P<lowest>\S+)×",
}
WORK = ("forward float32", "forward bfloat16", "backward float32", "backward bfloat16")


def table(name: str) -> str:
    return (ROOT / "bench" / "results" / name).read_text(encoding="utf-8")


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


@pytest.mark.parametrize("work", WORK)
def test_the_readme_quotes_the_geometric_means_as_they_are(work: str) -> None:
    row = re.search(rf"^\| {work} \| ([\d.]+)× \| ([\d.]+)× \|$", README, re.M)
    assert row is not None
    for quoted, mask in zip(row.groups(), ("full", "causal"), strict=True):
        mean = re.search(rf"^\| {work}, {mask} \| sdpa \| ([\d.]+)× \|$", table("zen3.md"), re.M)
        assert float(quoted) == pytest.approx(float(mean[1]), abs=0.05 if float(quoted) > 5 else 0.005)
