"""The cost of observing a model: time and memory compared with a plain run and with eager weights; and all statistics.

    python -m bench --only observing           both models
    python -m bench.capture.observing minilm llama-2048 llama-8192

Memory is the peak of one run, in a separate process for each way, minus that of the plain run. The peak is reset before
the run (Linux), because building the model may take more memory than running it.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from bench.harness import memory
from clearhead import capture

CASES = ("minilm", "llama-2048", "llama-8192")
EAGER_UP_TO = 2048  # tokens: eager weights of 8 layers × 8 heads at 8,192 tokens would take 17 GB


def model_and_inputs(case: str) -> tuple[nn.Module, dict[str, Any]]:
    """MiniLM on 512 tokens, or a Llama with random weights, 8 layers × 8 heads of width 64."""
    if case == "minilm":
        loaded = capture.load()
        return loaded.model, dict(loaded.tokenizer("attention " * 510, return_tensors="pt"))
    from transformers import LlamaConfig, LlamaModel

    length = int(case.removeprefix("llama-"))
    size = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
    torch.manual_seed(0)
    config = LlamaConfig(**size, vocab_size=1000, max_position_embeddings=length, use_cache=False)
    return LlamaModel(config).eval(), {"input_ids": torch.randint(0, 1000, (1, length))}


def plain(model: nn.Module, inputs: dict[str, Any]) -> None:
    model(**inputs)


def observed(model: nn.Module, inputs: dict[str, Any]) -> capture.Record:
    with capture.observe(model) as record:
        model(**inputs)
    return record


def eager(model: nn.Module, inputs: dict[str, Any]) -> Any:
    """The model's own weights with `output_attentions`: switched to eager, L×S per head, all kept."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        return model(**inputs, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)


WAYS: dict[str, Callable[..., Any]] = {"plain": plain, "observed": observed, "eager": eager}


def everything(record: capture.Record) -> None:
    """All statistics of all heads: entropy, maximum, effective keys, received, distances, top 8, a map of 64 × 64."""
    for matrix in record.values():
        matrix.survey(k=8, cells=(64, 64))


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timed(case: str, rounds: int) -> str:
    """One row of the table: A B A B in one process."""
    model, inputs = model_and_inputs(case)
    ways = [way for way in WAYS if way != "eager" or inputs["input_ids"].shape[1] <= EAGER_UP_TO]
    with torch.inference_mode():
        WAYS["plain"](model, inputs)
        record = WAYS["observed"](model, inputs)
        taken: dict[str, list[float]] = {way: [] for way in (*ways, "everything")}
        for _ in range(rounds):
            for way in ways:
                taken[way].append(seconds(lambda way=way: WAYS[way](model, inputs)))
            taken["everything"].append(seconds(lambda: everything(record)))
    base = median(taken["plain"])
    ratio = median(b / a for a, b in zip(taken["plain"], taken["observed"], strict=True))
    peaks = {way: peak(case, way) for way in ways}
    kept = sum(A._logits.query.nbytes + A._logits.key.nbytes for A in record.values()) / 1e6
    beyond = peaks["observed"] - peaks["plain"] - kept
    theirs = "– | –"
    if "eager" in ways:
        theirs = f"{median(taken['eager']) / base:.2f}× | {peaks['eager'] - peaks['plain']:+.0f}"
    return (
        f"| {case} | {inputs['input_ids'].shape[1]} | {base * 1e3:.0f} | {ratio:.3f}× | {kept:.0f} | {beyond:+.0f} "
        f"| {median(taken['everything']) / base:.2f}× | {theirs} |"
    )


def peak(case: str, way: str) -> float:
    """The peak memory in megabytes of a separate process that runs one way."""
    code = f"from bench.capture.observing import high_water; print(high_water({case!r}, {way!r}))"
    return float(subprocess.check_output([sys.executable, "-c", code], text=True).split()[-1])


def high_water(case: str, way: str) -> float:
    model, inputs = model_and_inputs(case)
    with torch.inference_mode():
        plain(model, inputs)  # so that one-time setup of the libraries is not measured
        memory.reset_peak()
        kept = WAYS[way](model, inputs)
    del kept
    return memory.peak() / 1e6


def main(cases: tuple[str, ...] = CASES) -> int:
    print("| model | tokens | plain, ms | observed | q and k, MB | beyond, MB | all statistics | eager | eager, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        print(timed(case, rounds=9 if case == "minilm" else 3 if case != "llama-8192" else 1), flush=True)
    print("\nTimes are shares of the plain run's; MB is the peak beyond the plain run's, and beyond queries and keys.")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m bench.capture.observing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="case", help=f"any of {', '.join(CASES)}; default: all")
    sys.exit(main(tuple(parser.parse_args().cases) or CASES))
