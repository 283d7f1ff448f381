"""Check that a survey computed in several ways gives the same files, bit for bit: `python -m bench.survey.resumed`.

The texts are 20,000 sentences of corpus.py, or as many as `--sentences` gives. They are surveyed by two workers; by
one worker that is killed with SIGKILL three times and resumed; and by two actors on a Ray cluster of two nodes on this
machine. Prints the seconds of each and the SHA-256 over all files. Takes about 20 minutes on two cores.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.survey.corpus import sentences

QUESTIONS = "scores,entropy,received,sinks,ablation"
KILLED_AFTER = (0.2, 0.45, 0.75)  # of the parts


class Surveys:
    """Surveys of one file of sentences, each in its own folder."""

    def __init__(self, place: Path, count: int, part: int) -> None:
        self._place, self._texts = place, place / "sentences.txt"
        self._texts.write_text("\n".join(sentences(count)), encoding="utf-8")
        self._part, self._parts = part, -(-count // part)

    def command(self, name: str, *options: str) -> list[str]:
        start = [sys.executable, "-m", "clearhead", "survey", "-", str(self._texts), "--out", str(self._place / name)]
        return [*start, "--ask", QUESTIONS, "--part", str(self._part), *options]

    def whole(self, name: str, *options: str) -> None:
        subprocess.run(self.command(name, *options), check=True, capture_output=True)

    def killed(self, name: str, *options: str) -> None:
        """Kill a running survey three times, then let it finish."""
        for share in KILLED_AFTER:
            process = subprocess.Popen(self.command(name, *options), stdout=subprocess.DEVNULL)
            while self.written(name) < max(share * self._parts, 1) and process.poll() is None:
                time.sleep(0.1)
            process.kill()
            process.wait()
            print(f"  killed after {self.written(name)} of {self._parts} parts", flush=True)
        self.whole(name, *options)

    def written(self, name: str) -> int:
        return len(list((self._place / name / "parts").glob("[0-9]*.parquet")))

    def digest(self, name: str) -> tuple[str, int]:
        """The SHA-256 over the names and digests of all files, and the number of files."""
        root = self._place / name
        files = {
            str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
        return hashlib.sha256(json.dumps(files).encode()).hexdigest(), len(files)


def on_two_nodes(surveys: Surveys, name: str) -> None:
    """Survey on a Ray cluster of two nodes on this machine, of one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        surveys.whole(name, "--workers", "2", "--address", cluster.address)
    finally:
        cluster.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.survey.resumed", description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--part", type=int, default=512, help="texts computed and written together")
    parser.add_argument("--no-ray", action="store_true", help="skip the cluster")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        surveys = Surveys(Path(place), options.sentences, options.part)
        ways: dict[str, Callable[[str], None]] = {
            "two-workers": lambda name: surveys.whole(name, "--no-ray", "--workers", "2"),
            "one-worker-killed-three-times": lambda name: surveys.killed(name, "--no-ray", "--workers", "1"),
        }
        if not options.no_ray:
            ways["two-nodes"] = lambda name: on_two_nodes(surveys, name)
        digests = {}
        for name, survey in ways.items():
            start = time.perf_counter()
            survey(name)
            digests[name], files = surveys.digest(name)
            seconds = time.perf_counter() - start
            print(f"{name}: {seconds:.0f} s, {files} files, sha256 {digests[name]}", flush=True)
    same = len(set(digests.values())) == 1
    print(f"{options.sentences:,} sentences: " + ("the files are equal, bit for bit" if same else "the files differ"))
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
