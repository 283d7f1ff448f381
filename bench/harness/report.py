"""Measure one piece of work after another and write the table, as Markdown to read and as JSON to compare."""

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from bench.harness.measure import Timing, agree, interleaved, undisturbed
from bench.harness.work import TOLERANCE, Work
from clearhead import __version__
from clearhead.kernels.native.cpu_targets import current


@dataclass(frozen=True)
class Row:
    """One measured piece of work.

    Attributes:
        timings: the timing of each way.
        difference: the largest difference between ours and the others, as a share of the largest entry.
        missing: the ways that cannot be measured here, and why.
        errors: each way's largest error against float64, as a share of the largest entry, in units of the dtype's
            epsilon.
        peak: the machine's peak when the row was measured, in operations per second.
    """

    group: str
    shape: str
    flops: float
    timings: dict[str, Timing]
    difference: float
    missing: dict[str, str] = field(default_factory=dict)
    peak: float = 0.0
    errors: dict[str, float] = field(default_factory=dict)

    def ratio(self, peer: str) -> float:
        """How many times as fast as a peer ours is, by the medians."""
        return self.timings[peer].median / self.timings["ours"].median


def measured(chosen: list[Work], seconds: float, peak: float = 0.0, real_time: bool = False) -> tuple[list[Row], str]:
    """Measure each piece of work, with a progress bar; return the rows, and why it ended early or "".

    Ctrl-C keeps what was measured, and so does a wrong result.

    Args:
        chosen: the pieces of work.
        seconds: about how long each piece may take.
        peak: the machine's peak, stored with each row.
        real_time: measure each piece at real-time priority.
    """
    rows: list[Row] = []
    try:
        for work in track(chosen, description="measuring", console=Console(stderr=True)):
            rows.append(_row(work, seconds, peak, real_time))
    except KeyboardInterrupt:
        return rows, f"Stopped after {len(rows)} of {len(chosen)}."
    except WrongAnswer as error:
        return rows, f"bench: {error}"
    return rows, ""


class WrongAnswer(Exception):
    """Ours differs from every peer."""


def _row(work: Work, seconds: float, peak: float, real_time: bool) -> Row:
    made = work.make()
    ways = {name: way for name, way in made.items() if not isinstance(way, str)}
    missing = {name: why for name, why in made.items() if isinstance(why, str)}
    if "ours" not in ways:
        return Row(work.group, work.shape, work.flops, {}, 0.0, missing)
    results = {name: way() for name, way in ways.items()}
    differences = [
        agree(results["ours"], other) for name, other in results.items() if name != "ours" and other is not None
    ]
    worst, least = max(differences, default=0.0), min(differences, default=0.0)
    # A peer may be less exact than its dtype: with AMX oneDNN multiplies float32 in bfloat16. The table shows it.
    if not least < TOLERANCE[work.dtype]:
        raise WrongAnswer(
            f"{work.group} {work.shape}: ours differs by {least:.1e} of the largest entry from every peer."
        )
    errors = {}
    if work.exact is not None:
        exact, unit = work.exact(), torch.finfo(work.dtype).eps
        errors = {name: agree(result, exact) / unit for name, result in results.items() if result is not None}
    del results
    with undisturbed(real_time):
        timings = interleaved(ways, seconds)
    return Row(work.group, work.shape, work.flops, timings, worst, missing, peak, errors)


def merged(before: list[Row], now: list[Row], order: list[Work]) -> list[Row]:
    """Merge the rows of two runs, in the order of all work; a new row replaces the old one."""
    rows = {(row.group, row.shape): row for row in (*before, *now)}
    places: dict[tuple[str, str], int] = {}
    for work in order:  # --quick repeats some of it: the first place counts
        places.setdefault((work.group, work.shape), len(places))
    return sorted(rows.values(), key=lambda row: places.get((row.group, row.shape), len(places)))


def from_json(text: str) -> list[Row]:
    """The rows that `as_json` wrote."""
    rows = json.loads(text)["rows"]
    return [Row(**row | {"timings": {name: Timing(**one) for name, one in row["timings"].items()}}) for row in rows]


def machine(peak: float) -> dict[str, Any]:
    """The machine and versions that were measured."""
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "target": current()[0].name,
        "peak_gflops": round(peak / 1e9, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "clearhead": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def markdown(rows: list[Row], peak: float) -> str:
    """The whole report. A row's share of the peak refers to the peak measured with it."""
    about = ", ".join(f"{name} {value}" for name, value in machine(peak).items())
    lines = [
        "# Bench",
        "",
        about + ".",
        "Milliseconds: median (best); spread is the interquartile range. Ratio: the peer's median over ours. GF/s and "
        "its share of the measured peak are for our best. Error: the largest against float64, as a share of the "
        "largest entry, in units of the dtype's epsilon; ours and the peer's.",
        "",
        "| work | shape | ours | spread | peer | its time | ratio | error, ours | error, peer | GF/s | of peak |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        about = f"| {row.group} | {row.shape}"
        lines += [f"{about} | – | – | {name} | {why} | – | – | – | – | – |" for name, why in row.missing.items()]
        if "ours" not in row.timings:
            continue
        ours = row.timings["ours"]
        speed = row.flops / ours.best
        for peer, timing in row.timings.items():
            if peer != "ours":
                lines.append(
                    f"{about} | {_ms(ours)} | {ours.spread:.0%} | {peer} | {_ms(timing)} "
                    f"| {row.ratio(peer):.2f}× | {_error(row, 'ours')} | {_error(row, peer)} | {speed / 1e9:.0f} "
                    f"| {speed / (row.peak or peak):.0%} |"
                )
    lines += ["", "| geometric mean | peer | ratio |", "|---|---|---|"]
    lines += [f"| {group} | {peer} | {mean:.2f}× |" for (group, peer), mean in means(rows).items()]
    return "\n".join(lines) + "\n"


def means(rows: list[Row]) -> dict[tuple[str, str], float]:
    """The geometric mean of the ratios, for each kind of work and peer."""
    logs: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for peer in row.timings:
            if peer != "ours":
                logs.setdefault((row.group, peer), []).append(math.log(row.ratio(peer)))
    return {key: math.exp(sum(found) / len(found)) for key, found in logs.items()}


def as_json(rows: list[Row], peak: float) -> str:
    return json.dumps({"machine": machine(peak), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def _error(row: Row, name: str) -> str:
    return f"{row.errors[name]:.2g}" if name in row.errors else "–"


def _ms(timing: Timing) -> str:
    return f"{timing.median * 1e3:.3g} ({timing.best * 1e3:.3g})"
