"""`clearhead check`: prove packs, print a receipt line per item, write the receipts, watch for changes."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from clearhead.course.check.guessing import guessable
from clearhead.course.pack.item import Pack
from clearhead.course.pack.loader import find, load, shipped
from clearhead.course.proofs.pages import kept_pages, page_key, prove_pages
from clearhead.course.proofs.prove import SEEDS, prove_pack, prover, versions
from clearhead.course.proofs.proved import Outcome
from clearhead.errors import PackError, ProofError
from clearhead.files import unwritable, whole_file

Show = Callable[[str], None]
FORMAT = "clearhead.check/1"
RECEIPTS = Path(".receipts")
POLL = 0.5  # seconds between two looks at a watched folder


def check(
    packs: Sequence[Path], *, item: str | None = None, jobs: int = 2, fresh: bool = False, seeds: int = SEEDS,
    receipts: Path | None = RECEIPTS, show: Show = print,
) -> int:  # fmt: skip
    """Prove the packs (the shipped packs if none is named) and print a line for each item.

    Args:
        fresh: prove every item, not only those that changed or whose libraries changed.
        seeds: at how many seeds an item with variants must hold.
        receipts: a folder for <pack>.json, what was proved with which versions, and for the proofs; None: neither.
    Returns:
        How many items and pages are wrong, and how many problems keep a pack from being read.
    """
    checked = check_all(packs, item=item, jobs=jobs, fresh=fresh, seeds=seeds, receipts=receipts, show=show)
    return sum(pack.wrong for pack in checked)


def with_item(packs: Sequence[Path], item: str | None) -> list[Path]:
    """Return the packs to check: those named, or the shipped ones; with an item, those that have it or cannot be read.

    Raises:
        PackError: a path is not a pack's folder, or no pack has the item.
    """
    places = [find(pack) for pack in packs] or shipped()
    for place in places:
        if not (place / "pack.toml").is_file():
            raise PackError(
                f"{place} is not a pack: it has no pack.toml. Give a pack's folder; "
                "`clearhead new pack NAME` makes one."
            )
    if item is None:
        return places
    chosen: list[Path] = []
    known: list[str] = []
    for place in places:
        try:
            items = load(place).items
        except PackError:
            chosen.append(place)  # `check` reports what is wrong with it
            continue
        known += items
        if item in items:
            chosen.append(place)
    if not chosen:
        close = get_close_matches(item, known, 5) or known[:5]
        raise PackError(f"there is no item {item!r} in {', '.join(map(str, places))}. Did you mean {', '.join(close)}?")
    return chosen


@dataclass
class CheckedPack:
    """The result of checking one pack.

    Attributes:
        pack: None if the pack cannot be read; then `problems` says why.
        problems: a sentence for each thing that keeps a pack from being read, and for each page that is wrong. Items
            have an outcome each.
        receipts: the file that was written, if any.
    """

    path: Path
    pack: Pack | None = None
    outcomes: Sequence[Outcome] = ()
    problems: list[str] = field(default_factory=list)
    warnings: Sequence[str] = ()
    receipts: Path | None = None

    @property
    def wrong(self) -> int:
        """How many items and pages are wrong, and how many problems keep the pack from being read."""
        return sum(not outcome.ok for outcome in self.outcomes) + len(self.problems)


def check_all(
    packs: Sequence[Path], *, item: str | None = None, jobs: int = 2, fresh: bool = False, seeds: int = SEEDS,
    receipts: Path | None = RECEIPTS, show: Show = lambda _: None,
) -> list[CheckedPack]:  # fmt: skip
    """Prove the packs as `check` does, and return the result for each."""
    return [_check(path, item, jobs, fresh, seeds, receipts, show) for path in packs or shipped()]


def as_data(checked: Sequence[CheckedPack]) -> dict[str, Any]:
    """Return the result as JSON-ready data: what `clearhead check --json` prints."""
    return {"format": FORMAT, "wrong": sum(pack.wrong for pack in checked), "packs": [_data(pack) for pack in checked]}


def _data(checked: CheckedPack) -> dict[str, Any]:
    items = [
        {
            "id": outcome.item_id, "file": outcome.file, "line": outcome.line, "proved": outcome.ok,
            "error": None if outcome.ok else str(outcome.error), "unchanged": outcome.cached,
            "seed": outcome.proved.receipt.seed if outcome.proved else None,
            "outcome": outcome.proved.receipt.outcome if outcome.proved else None,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in checked.outcomes
    ]  # fmt: skip
    return {
        "path": str(checked.path), "id": checked.pack.id if checked.pack else None,
        "version": checked.pack.version if checked.pack else None, "wrong": checked.wrong, "items": items,
        "problems": checked.problems, "warnings": list(checked.warnings),
        "receipts": str(checked.receipts) if checked.receipts else None,
    }  # fmt: skip


def _check(
    path: Path, item: str | None, jobs: int, fresh: bool, seeds: int, receipts: Path | None, show: Show
) -> CheckedPack:
    checked = CheckedPack(path)

    def problem(text: str) -> None:
        checked.problems.append(text)
        show(text)

    try:
        path = checked.path = find(path)
        pack = checked.pack = load(path)
    except PackError as error:
        for each in (error, *error.others):
            problem(f"{path}/{each}" if each.file else f"{path}: {each}")
        return checked
    if item is not None and item not in pack.items:
        problem(f"{path}: no item {item!r}; it has {', '.join(pack.items)}")
        return checked
    cache = receipts / "proofs" if receipts else None

    def report(outcome: Outcome, done: int, every: int) -> None:
        show(f"[{done}/{every}] {line(pack, outcome)}")

    outcomes = checked.outcomes = prove_pack(
        pack, cache=cache, jobs=jobs, only=item, seeds=seeds, fresh=fresh, progress=report
    )
    kept = sum(outcome.cached for outcome in outcomes)
    if item is None:
        _pages(pack, jobs, cache, fresh, problem, show)
    unchanged = f", {kept} of them unchanged" if kept else ""
    proved = sum(outcome.ok for outcome in outcomes)
    show(f"{pack.id} {pack.version}: {proved} of {len(outcomes)} items proved{unchanged}")
    checked.warnings = guessable(outcomes)
    for warning in checked.warnings:
        show(f"{pack.id}: {warning}")
    if receipts and item is None:
        checked.receipts = write_receipts(pack, outcomes, receipts)
        show(f"receipts: {checked.receipts}")
    return checked


def _pages(pack: Pack, jobs: int, cache: Path | None, fresh: bool, problem: Show, show: Show) -> None:
    """Run the programs of the pages that changed; call `problem` for each page that is wrong."""
    place = cache / pack.id / "pages.json" if cache else None
    kept = {} if fresh else kept_pages(place)
    pages = [list(topic.pages.values()) for topic in pack.topics]
    keys = {page.file: page_key(page, pack) for group in pages for page in group}
    waiting = [[page for page in group if kept.get(page.file) != keys[page.file]] for group in pages]
    wrong = set()
    with prover(jobs) as submit:
        running = [submit(prove_pages, group, pack) for group in waiting]
        for topic, group, run in zip(pack.topics, waiting, running, strict=True):
            for page, count in zip(group, run.result(), strict=True):
                if isinstance(count, ProofError):
                    problem(f"{pack.path}/{count}")
                    wrong.add(page.file)
                elif count:
                    show(f"ok  {topic.id}/{page.mode}  page, {count} program{'s' * (count > 1)} run")
    if place:
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as draft:
            proved = {file: key for file, key in keys.items() if file not in wrong}
            draft.write_text(json.dumps(proved), encoding="utf-8")


def line(pack: Pack, outcome: Outcome) -> str:
    """Return the receipt line of an item, or its error and place. Only the time, at the end, differs between runs."""
    if outcome.proved is None:
        place = f"{pack.path / outcome.file}:{outcome.line}" if outcome.line else str(pack.path / outcome.file)
        return f"{place}: {outcome.error}"
    receipt = outcome.proved.receipt
    how = "unchanged" if outcome.cached else f"{outcome.seconds:.1f} s"
    return f"ok  {outcome.item_id}  {outcome.proved.kind}  seed {receipt.seed}  {receipt.outcome[:12]}  {how}"


def write_receipts(pack: Pack, outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Write <folder>/<pack>.json. Two runs write the same bytes except for the times, under "seconds"."""
    items = {
        outcome.item_id: {
            "item_hash": outcome.proved.receipt.item_hash, "seed": outcome.proved.receipt.seed,
            "outcome": outcome.proved.receipt.outcome,
        } if outcome.proved else {"error": outcome.error, "line": outcome.line}
        for outcome in outcomes
    }  # fmt: skip
    data = {
        "pack": pack.id, "version": pack.version, "versions": dict(versions(pack.preload)), "items": items,
        "seconds": {outcome.item_id: round(outcome.seconds, 3) for outcome in outcomes},
    }  # fmt: skip
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    place = folder / f"{pack.id}.json"
    with whole_file(place) as draft:
        draft.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def watch(packs: Sequence[Path], run: Callable[[], int], show: Show = print, rounds: int | None = None) -> None:
    """Call `run` now and after every change to a file of the packs, until Ctrl-C or for `rounds` rounds."""
    folders = [find(path) for path in packs] or shipped()
    before: dict[Path, int] | None = None
    while rounds is None or rounds > 0:
        now = {file: _changed(file) for folder in folders for file in sorted(folder.rglob("*"))}
        if now != before:
            first, before = before is None, now
            try:
                run()
            except PackError as error:
                if first:
                    raise
                show(str(error))  # keep watching: a pack that was moved may come back
            show("watching; Ctrl-C ends")
            rounds = None if rounds is None else rounds - 1
        else:
            time.sleep(POLL)


def _changed(file: Path) -> int:
    """Return when a file was changed, in nanoseconds; 0 for a folder or a file that no longer exists."""
    try:
        return file.stat().st_mtime_ns if file.is_file() else 0
    except OSError:
        return 0
