"""The table: Markdown to read, JSON to compare."""

import json
import math
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from clearhead import __version__
from clearhead.kernels.native import current

from .measure import Timing


@dataclass(frozen=True)
class Row:
    """One measured piece of work: a timing for each way, and the largest difference between ours and the others."""

    group: str
    shape: str
    flops: float
    timings: dict[str, Timing]
    difference: float

    def ratio(self, peer: str) -> float:
        """How many times faster ours is than a peer, by the medians."""
        return self.timings[peer].median / self.timings["ours"].median


def machine(peak: float) -> dict[str, Any]:
    """What the figures were measured on."""
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
    """The whole report."""
    about = ", ".join(f"{name} {value}" for name, value in machine(peak).items())
    lines = [
        "# Bench",
        "",
        about + ".",
        "Milliseconds: median (best); spread is the quartiles' distance. Ratio: peer's median over ours. GF/s and its "
        "share of the measured peak are of our best.",
        "",
        "| work | shape | ours | spread | peer | its time | ratio | GF/s | of peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours = row.timings["ours"]
        speed = row.flops / ours.best
        for peer, timing in row.timings.items():
            if peer != "ours":
                lines.append(
                    f"| {row.group} | {row.shape} | {_ms(ours)} | {ours.spread:.0%} | {peer} | {_ms(timing)} "
                    f"| {row.ratio(peer):.2f}× | {speed / 1e9:.0f} | {speed / peak:.0%} |"
                )
    lines += ["", "| geometric mean | peer | ratio |", "|---|---|---|"]
    lines += [f"| {group} | {peer} | {mean:.2f}× |" for (group, peer), mean in means(rows).items()]
    return "\n".join(lines) + "\n"


def means(rows: list[Row]) -> dict[tuple[str, str], float]:
    """The geometric mean of the ratio for each kind of work and peer."""
    logs: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for peer in row.timings:
            if peer != "ours":
                logs.setdefault((row.group, peer), []).append(math.log(row.ratio(peer)))
    return {key: math.exp(sum(found) / len(found)) for key, found in logs.items()}


def as_json(rows: list[Row], peak: float) -> str:
    return json.dumps({"machine": machine(peak), "rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def _ms(timing: Timing) -> str:
    return f"{timing.median * 1e3:.3g} ({timing.best * 1e3:.3g})"
