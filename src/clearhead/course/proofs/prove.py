"""Prove items: run their programs, compute their answers, write receipts, and skip what the cache holds."""

import contextlib
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import clearhead
from clearhead import sandbox
from clearhead.course.pack.item import Item, Pack
from clearhead.course.proofs.kinds import PROOFS
from clearhead.course.proofs.placeholders import fill
from clearhead.course.proofs.proved import Outcome, Proved, Receipt
from clearhead.course.proofs.runner import SALTS, Runner
from clearhead.course.proofs.wording import check_wording
from clearhead.errors import ProofError, SandboxError
from clearhead.files import discard

ENGINE = "6"  # increase when the same item would be proved differently
SEEDS = 12  # number of seeds at which an item with variants must hold
LARGEST = 1_000_000  # characters of what a proof computes, as JSON: it is kept on the disk and in memory
JUDGED = 3  # as above, where each program costs two processes of its own

Report = Callable[[Outcome, int, int], None]


def prove(item: Item, pack: Pack, *, seed: int | None = None) -> Proved:
    """Run the item's programs in the sandbox, each twice, and compute its answer.

    Args:
        seed: draw the numbers from another seed than the item's own (items with `variants = true`).
    Returns:
        Proved, with the receipt that says how to repeat it.
    Raises:
        ProofError: the item does not hold; with file and line.
        SandboxError: this machine cannot confine programs.
    """
    return _prove(Runner(item, pack, item.seed if seed is None or not item.variants else seed))


def _prove(runner: Runner) -> Proved:
    started, item = time.monotonic(), runner.item
    if item.kind not in PROOFS:
        line = item.lines.get("kind")
        raise ProofError(f"no proof for kind {item.kind!r} yet; known: {', '.join(PROOFS)}", file=item.file, line=line)
    parts = PROOFS[item.kind](runner)
    values: Mapping[str, str] = parts["values"]
    proved = Proved(
        item_id=item.id, kind=item.kind, stem=fill(item.stem, values), rule=fill(item.rule, values),
        receipt=Receipt(item.hash, runner.seed, versions(runner.pack.preload), "", 0.0),
        hints=tuple(fill(hint, values) for hint in item.hints), pitfalls=fill(item.pitfalls, values),
        rationales={name: fill(text, values) for name, text in item.rationales.items()}, **parts,
    )  # fmt: skip
    receipt = replace(proved.receipt, outcome=_digest(proved, item.file), seconds=time.monotonic() - started)
    return replace(proved, receipt=receipt)


def _digest(proved: Proved, file: str) -> str:
    """Return the hash of everything the proof computed.

    Raises:
        ProofError: it computed more than LARGEST characters.
    """
    facts: dict[str, Any] = proved.to_json()
    del facts["receipt"]
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    if len(text) > LARGEST:
        message = f"its proof computes {len(text):,} characters; at most {LARGEST:,} are kept. Print less."
        raise ProofError(message, file=file)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def versions(preload: tuple[str, ...]) -> Mapping[str, str]:
    """Return the versions that can change an outcome."""
    installed = {"clearhead": clearhead.__version__, "engine": ENGINE, "python": platform.python_version()}
    for name in (*preload, *(["numpy"] if "torch" in preload else [])):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "none"
    return installed


def prove_pack(
    pack: Pack, *, cache: Path | None = None, jobs: int = 2, progress: Report | None = None,
    only: str | None = None, topic: str | None = None, seeds: int = SEEDS, fresh: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Prove every item of the pack (or the one named `only`, or those of one topic), `jobs` at a time.

    Args:
        cache: a folder of earlier proofs; an item is skipped if its hash and the versions are the same.
        seeds: at how many seeds an item with variants must hold; at most three where its programs are judged by tests.
        fresh: prove every item again; the cache is then written only.
        progress: called after each item with (outcome, how many are done, how many there are). An exception that it
            raises ends the run, as Ctrl-C does: the programs in progress are stopped.
    Returns:
        One Outcome per item, in the pack's order. A wrong item is an outcome, never an exception.
    Raises:
        SandboxError: this machine cannot confine programs.
    """
    if cache:
        sandbox.hide(cache)
    items = [item for item in pack.items.values() if only in (None, item.id) and topic in (None, item.topic)]
    done: dict[str, Outcome] = {}
    if cache is None or fresh:
        sandbox.warm(pack.preload, SALTS)
    with prover(jobs) as submit:
        waiting = {submit(_outcome, item, pack, cache, seeds, fresh): item.id for item in items}
        for future in as_completed(waiting):
            outcome = future.result()
            done[outcome.item_id] = outcome
            if progress:
                progress(outcome, len(done), len(items))
    return [done[item.id] for item in items]


@contextlib.contextmanager
def prover(jobs: int) -> Iterator[Callable[..., "Future[Any]"]]:
    """Yield a function that submits work to a pool of threads. An exception in the block, or Ctrl-C, stops it.

    Leaving the pool would otherwise prove everything in its queue, and wait for the programs in progress.
    """
    stop = threading.Event()

    def until(work: Callable[..., Any], *arguments: Any) -> Any:
        with sandbox.cancelled_by(stop):
            return work(*arguments)

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as threads:
        try:
            yield lambda work, *arguments: threads.submit(until, work, *arguments)
        except BaseException:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _outcome(item: Item, pack: Pack, folder: Path | None, seeds: int, fresh: bool) -> Outcome:
    started = time.monotonic()
    place = folder / pack.id / f"{item.id}.json" if folder else None
    key = {"item_hash": item.hash, "versions": dict(versions(pack.preload)), "seed": item.seed}
    key |= {"seeds": seeds} if item.variants else {}
    kept = _kept(place, key) if place and not fresh else None
    if kept:
        return Outcome(item.id, item.file, kept, cached=True, seconds=time.monotonic() - started)
    try:
        runner = Runner(item, pack, item.seed, _seeds(item, seeds))
        proved = _prove(runner)
        _prove_variants(proved, runner)
    except ProofError as error:
        return Outcome(item.id, item.file, None, _without_place(error), error.line, seconds=time.monotonic() - started)
    except SandboxError as error:
        if sandbox.backend() is None:
            raise
        return Outcome(item.id, item.file, None, str(error), seconds=time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 — one item never ends the proof of the others
        problem = (
            f"this item cannot be proved: {type(error).__name__}: {str(error)[:300]}. This is a fault in clearhead"
        )
        return Outcome(item.id, item.file, None, problem, seconds=time.monotonic() - started)
    if place:
        with contextlib.suppress(OSError):  # without the cache, the item is proved again next time
            _keep(place, {"key": key, "proved": proved.to_json()})
    return Outcome(item.id, item.file, proved, seconds=time.monotonic() - started)


def _seeds(item: Item, count: int) -> range:
    """Return the seeds at which an item must hold: its own, and the following ones if it has variants."""
    judged = item.kind in ("debug", "code")
    return range(item.seed, item.seed + (min(count, JUDGED if judged else count) if item.variants else 1))


def _prove_variants(proved: Proved, runner: Runner) -> None:
    """Check the other seeds: the item holds, at least one gives other numbers, and the prose fits all of them."""
    item, others = runner.item, []
    for seed in runner.seeds[1:]:
        try:
            others.append(_prove(runner.at(seed)))
        except ProofError as error:
            raise ProofError(f"with seed {seed}: {_without_place(error)}", file=error.file, line=error.line) from None
    if others and all(_shown(other) == _shown(proved) for other in others):
        message = "another seed asks and answers the same; draw the numbers from `seed`, or drop `variants`"
        raise ProofError(message, file=item.file, line=item.lines.get("variants"))
    check_wording(item, [proved, *others])


def _without_place(error: ProofError) -> str:
    """Return the error message without the place."""
    return str(error).removeprefix(f"{error.file}:{error.line}: ").removeprefix(f"{error.file}: ")


def _shown(proved: Proved) -> tuple[str, ...]:
    return proved.stem, proved.given, proved.answer, *(option.text for option in proved.options)


def _kept(place: Path, key: Mapping[str, Any]) -> Proved | None:
    """Return the proof stored at `place` if it matches this item and these versions. A damaged file counts as none."""
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
        return Proved.from_json(data["proved"]) if data["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _keep(place: Path, data: Mapping[str, Any]) -> None:
    """Write the file atomically."""
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_name(f"{place.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        half.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        half.replace(place)
    finally:
        discard(half)
