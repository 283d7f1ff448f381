"""A survey of MiniLM over 20,000 sentences, compared with a plain forward loop: `python -m bench.survey.corpus`.

The sentences come from the licences and documentation on the machine. Survey and loop process the same texts in the
same batches, with the same number of workers of one thread each. Takes five minutes on two cores, less with fewer
`--sentences`.
"""

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch

from clearhead import capture
from clearhead.capture import Loaded
from clearhead.survey import Settings, open_corpus, survey
from clearhead.survey.corpus.parts import Corpus, Part
from clearhead.survey.measuring.batches import Batch, batches, inputs, pad_id, tokenize
from clearhead.survey.measuring.worker import own_copy
from clearhead.survey.surveying import check_installed

PLACES = ("/usr/share/common-licenses", "/usr/share/doc", "/usr/share/perl", sys.prefix)
ENDINGS = (".txt", ".md", ".rst", ".pod", "copyright", "LICENSE", "METADATA")
ALLOWED = 1.15  # the time a survey may take, as a multiple of the plain loop's


def sentences(count: int) -> list[str]:
    """Distinct sentences of 4 to 60 words, in the order of the files' names."""
    found: dict[str, None] = {}
    for text in _files():
        for sentence in re.split(r"(?<=[.;:!?])\s+", " ".join(text.split())):
            if 4 <= len(sentence.split()) <= 60 and sum(letter.isalpha() for letter in sentence) > len(sentence) / 2:
                found[sentence] = None
        if len(found) >= count:
            return list(found)[:count]
    return list(found)


def _files() -> Iterator[str]:
    for place in PLACES:
        for path in sorted(Path(place).rglob("*")):
            if path.is_file() and (path.name.endswith(ENDINGS) or place == PLACES[0]):
                yield path.read_text(encoding="utf-8", errors="ignore")


def plain(loaded: Loaded, corpus: Corpus, parts: list[Part], settings: Settings, workers: int) -> float:
    """The seconds of a forward loop: tokenize, make batches, run the model."""
    models = [loaded, *(own_copy(loaded) for _ in range(workers - 1))]

    def loop(worker: int) -> None:
        own = models[worker]
        for part in parts[worker::workers]:
            texts = [text or "" for text in corpus.read(part)]
            rows = tokenize(own, texts, own.max_length)
            for batch in batches(rows, settings.batch_tokens, pad_id(own)):
                forward(own, batch)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(loop, range(workers)))
    return time.perf_counter() - start


def forward(loaded: Loaded, batch: Batch) -> None:
    with torch.inference_mode():
        loaded.model(**inputs(batch), use_cache=False)


def surveyed(corpus: Corpus, settings: Settings, workers: int, *, ray: bool) -> tuple[float, dict[str, int]]:
    """The seconds of a survey from its first part to its last file, without loading, and its counts."""
    began: list[float] = []

    def progress(doing: str, done: int, total: int) -> None:
        if not began and doing.startswith("surveying"):
            began.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as place:
        result = survey(None, corpus, Path(place) / "out", settings, workers=workers, ray=ray, progress=progress)
        return time.perf_counter() - began[0], result.counts


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.survey.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured, in turn")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="numbers of workers")
    parser.add_argument("--ray", action="store_true", help="also measure on Ray, including its start")
    options = parser.parse_args()
    check_installed(options.ray)  # before minutes of measuring
    torch.set_num_threads(1)
    loaded, settings = capture.load(), Settings()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sentences.txt"
        path.write_text("\n".join(sentences(options.sentences)), encoding="utf-8")
        corpus = open_corpus(path)
        parts = corpus.parts(settings.part_texts)
        plain(loaded, corpus, parts[:1], settings, 1)  # warm
        for workers in options.workers:
            measure(loaded, corpus, parts, settings, workers, options.rounds, ray=options.ray)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"at most {memory:,.0f} MiB; {os.cpu_count()} cores, torch {torch.__version__}")


def measure(
    loaded: Loaded, corpus: Corpus, parts: list[Part], settings: Settings, workers: int, rounds: int, *, ray: bool
) -> None:
    """Print the seconds of both, in turn, and their ratio."""
    loops, surveys, on_ray = [], [], []
    counts: dict[str, int] = {}
    for _ in range(rounds):
        loops.append(plain(loaded, corpus, parts, settings, workers))
        seconds, counts = surveyed(corpus, settings, workers, ray=False)
        surveys.append(seconds)
        if ray:
            on_ray.append(surveyed(corpus, settings, workers, ray=True)[0])
    pairs = sorted(ours / theirs for ours, theirs in zip(surveys, loops, strict=True))
    print(
        f"{workers} workers: {counts['texts']:,} texts, {counts['tokens']:,} tokens, "
        f"{1 - counts['tokens'] / counts['positions']:.1%} padding; plain loop {median(loops):.1f} s, survey "
        f"{median(surveys):.1f} s: {median(pairs):.3f}× (at most {ALLOWED}×)"
        + (f"; on Ray {median(on_ray):.1f} s" if ray else ""),
        flush=True,
    )


if __name__ == "__main__":
    main()
