"""`python -m bench`: measure, check, write the table."""

import argparse
import os
import sys
from pathlib import Path

# Keeps threads on their cores. OpenMP reads this when torch loads it. With --lengths the measuring processes set it
# themselves: otherwise they would inherit the single core of this process.
if "--lengths" not in sys.argv:
    os.environ.setdefault("OMP_PROC_BIND", "true")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Compare Clearhead's kernels with torch's.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller shapes, under a minute")
    parser.add_argument("--only", default="", help="only work whose name contains this text; updates the last table")
    parser.add_argument("--list", action="store_true", help="list every piece of work and stop")
    parser.add_argument("--seconds", type=float, default=0, help="about how long each piece of work may take")
    parser.add_argument("--threads", type=int, default=0, help="threads to use (default: torch's number)")
    parser.add_argument("--lengths", action="store_true", help="only time and memory against L, and their plot")
    parser.add_argument("--real-time", action="store_true", help="measure at real-time priority (Linux, root)")
    parser.add_argument("--out", type=Path, default=Path("bench/results"), help="folder for the results")
    options = parser.parse_args()

    import torch

    from bench.capture.observing import main as observing
    from bench.harness import report
    from bench.harness.measure import peak, undisturbed
    from bench.harness.work import all_work
    from bench.kernels import lengths
    from clearhead.kernels import targets

    if not targets():
        print("bench: the native library was not built, so there is nothing to compare. Install a C++ compiler.")
        return 1
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.lengths:
        return lengths.run(options.out)
    chosen = [work for work in all_work(options.quick) if options.only in f"{work.group} {work.shape}"]
    if options.list:
        print("\n".join(f"{work.group}: {work.shape}" for work in chosen))
        return 0
    if options.only == "observing":
        return observing()
    with undisturbed(options.real_time):
        top = peak()
    seconds = options.seconds or (0.5 if options.quick else 3.0)
    rows, ended = report.measured(chosen, seconds, top, options.real_time)
    kept = options.out / "bench.json"
    if options.only and kept.exists():
        rows = report.merged(report.from_json(kept.read_text()), rows, [*all_work(False), *all_work(True)])
    text = report.markdown(rows, top)
    (options.out / "bench.md").write_text(text)
    kept.write_text(report.as_json(rows, top))
    print(text)
    print(f"Written to {options.out}/bench.md and bench.json.")
    if ended:
        print(ended)
    return 1 if ended else 0


if __name__ == "__main__":
    sys.exit(main())
