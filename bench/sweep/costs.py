"""Fit the costs of a class of CPUs to a sweep (kernels/measured/cpu_classes.py): `python -m bench.sweep.costs FILE`."""

import argparse
import json
from pathlib import Path

import torch

from bench.sweep.table import Case, CaseResult
from clearhead.kernels.measured.tasks import TASKS, Cost, Costs, share, task_of
from clearhead.kernels.tuning import fit

QUERIES = {"none": None, "one query": 1, "5 queries": 5, "13 queries": 13}  # the masks that show the cost of products
ENOUGH = 4  # measurements: fewer do not determine the three parts of a cost
LARGEST = 1 << 24  # limit on B·H·L·S: larger cases do not fit the caches, and the two costs are not close there


def costs(found: list[CaseResult], threads: int) -> Costs:
    """The costs of every task and dtype for which the sweep has enough measurements."""
    points: dict[tuple[str, torch.dtype], list[tuple[tuple[int, float], CaseResult]]] = {}
    for each in found:
        case = each.case
        if case.mask not in QUERIES or case.batch * case.heads * case.length**2 > LARGEST:
            continue
        queries = QUERIES[case.mask] or case.length
        part = share(case.batch * case.heads, queries, case.length, case.width, threads)
        key = task_of(queries, case.length, case.learns), getattr(torch, case.dtype)
        points.setdefault(key, []).append((part, each))
    return {
        key: (fit([(*part, each.ours) for part, each in here]), fit([(*part, each.torch) for part, each in here]))
        for key, here in points.items()
        if len(here) >= ENOUGH
    }


def line(key: tuple[str, torch.dtype], pair: tuple[Cost, Cost]) -> str:
    """A line of the table."""
    each = (
        "Cost(" + ", ".join(f"{part:.3g}" if part < 1000 else f"{part:.0f}" for part in cost) + ")" for cost in pair
    )
    return f'("{key[0]}", torch.{str(key[1])[6:]}): ({", ".join(each)}),'


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sweep.costs", description=__doc__)
    parser.add_argument("file", type=Path, help="what `bench.sweep --out` wrote")
    data = json.loads(parser.parse_args().file.read_text())
    found = [CaseResult(Case(**each.pop("case")), **each) for each in data["found"]]
    fitted = costs(found, data["machine"]["threads"])
    for key in sorted(fitted, key=lambda key: (TASKS.index(key[0]), str(key[1]))):
        print(line(key, fitted[key]))


if __name__ == "__main__":
    main()
