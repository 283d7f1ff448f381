"""The cost of observing a model while it writes: `python -m bench.capture.writing`.

Two copies of the chat model write the same text, one observed and one not, a token each in turn, so that both meet the
same state of the machine; which one begins alternates. Prints the median time of a token, the ratio of the two, and the
memory that the record keeps. Exits with 1 if the tokens differ or the ratio is above 1.05.
"""

import argparse
import copy
import time
from collections.abc import Iterator
from contextvars import copy_context
from statistics import median
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from clearhead import capture
from clearhead.local_models.chat_model import CHAT_NAME

LIMIT = 1.05
PROMPT = "The keeper of the light wrote down what the weather did, hour by hour, and"


def writes(model: nn.Module, ids: torch.Tensor) -> Iterator[int]:
    """Yield the most likely token after those given, and go on."""
    cache: Any = DynamicCache(config=model.config)
    while True:  # the cache by position: transformers 5.24 renamed the argument
        ids = model(ids, None, None, cache).logits[:, -1:].argmax(-1)
        yield int(ids)


def compare(tokens: int) -> bool:
    """Print one comparison; return whether it is within the limit."""
    loaded = capture.load(CHAT_NAME)
    ids = loaded.tokenizer(PROMPT, return_tensors="pt").input_ids
    outside = copy_context()  # observers record the context they are opened in, and no other
    watched = copy.deepcopy(loaded.writer)
    took: dict[str, list[float]] = {"plain": [], "observed": []}
    texts: dict[str, list[int]] = {"plain": [], "observed": []}
    with torch.no_grad(), capture.observe(watched) as record:
        writers = {"plain": writes(loaded.writer, ids), "observed": writes(watched, ids)}
        for turn in range(tokens + 1):
            for way in sorted(writers, reverse=bool(turn % 2)):
                start = time.perf_counter()
                token = next(writers[way]) if way == "observed" else outside.run(next, writers[way])
                took[way].append(time.perf_counter() - start)
                texts[way].append(token)
    plain, observed = (values[1:] for values in took.values())  # without the prompt
    ratio = median(later / first for first, later in zip(plain, observed, strict=True))
    matrices = record.generated()
    kept = sum(A._logits.query.nbytes + A._logits.key.nbytes for A in matrices) / 1e6
    print(
        f"{tokens} tokens: {median(plain) * 1e3:.2f} ms each, observed {median(observed) * 1e3:.2f} ms, "
        f"{ratio:.3f} times as long (sums {sum(observed) / sum(plain):.3f}); queries and keys kept: {kept:.1f} MB"
    )
    return ratio <= LIMIT and texts["plain"] == texts["observed"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.capture.writing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    within = [compare(options.tokens) for _ in range(options.rounds)]
    if not all(within):
        raise SystemExit(f"above {LIMIT} times the plain run, or another text")


if __name__ == "__main__":
    main()
