"""`python -m bench`: measure, check, write the table."""

import argparse
import os
import sys
from pathlib import Path

# Read by OpenMP when it is loaded, so before torch: threads stay on their cores.
os.environ.setdefault("OMP_PROC_BIND", "true")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Clearhead's kernels beside torch's.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller shapes, under a minute")
    parser.add_argument("--only", default="", help="measure only work whose name contains this text")
    parser.add_argument("--threads", type=int, default=0, help="threads to use; torch's own number if not given")
    parser.add_argument("--lengths", action="store_true", help="only time and memory against L, up to 65,536")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder for bench.md and bench.json")
    options = parser.parse_args()

    import torch
    from rich.console import Console
    from rich.progress import track

    from bench.lengths import table
    from bench.measure import agree, interleaved, peak
    from bench.observing import main as observing
    from bench.report import Row, as_json, markdown
    from bench.work import TOLERANCE, all_work
    from clearhead.kernels import targets

    if not targets():
        print("bench: the native library was not built, so there is nothing to compare. Install a C++ compiler.")
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.lengths:
        print(table())
        return 0
    if options.only == "observing":
        return observing()
    top = peak()
    rows = []
    chosen = [work for work in all_work(options.quick) if options.only in f"{work.group} {work.shape}"]
    for work in track(chosen, description="measuring", console=Console(stderr=True)):
        ways = work.make()
        results = {name: way() for name, way in ways.items()}
        difference = max(agree(results["ours"], other) for name, other in results.items() if name != "ours")
        if not difference < TOLERANCE[work.dtype]:
            print(f"bench: {work.group} {work.shape}: ours and a peer differ by {difference:.1e} of the largest entry.")
            return 1
        timings = interleaved(ways, seconds=0.7 if options.quick else 3.0)
        rows.append(Row(work.group, work.shape, work.flops, timings, difference))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.md").write_text(markdown(rows, top))
    (options.out / "bench.json").write_text(as_json(rows, top))
    print(markdown(rows, top))
    print(f"Written to {options.out}/bench.md and bench.json.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
