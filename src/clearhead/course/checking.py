"""`clearhead check`: prove packs, print a receipt line an item, write the receipts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from clearhead.course.item import Pack
from clearhead.course.pack import load, shipped
from clearhead.course.prove import prove_pack, versions
from clearhead.course.proved import Outcome
from clearhead.errors import PackError


def check(
    packs: Sequence[Path], *, item: str | None = None, jobs: int = 2, cache: Path | None = None,
    receipts: Path | None = None, say: Callable[[str], None] = print,
) -> int:  # fmt: skip
    """Prove the packs (the shipped ones if none is named); say a line an item.

    Args:
        receipts: a folder for <pack>.json, what was proved with which versions; None writes none.
    Returns:
        How many items are wrong; a pack that cannot be read counts as one.
    """
    wrong = 0
    for path in packs or shipped():
        try:
            pack = load(path)
        except PackError as error:
            say(f"{path}: {error}")
            wrong += 1
            continue
        if item is not None and item not in pack.items:
            say(f"{path}: no item {item!r}; it has {', '.join(pack.items)}")
            wrong += 1
            continue
        outcomes = prove_pack(pack, cache=cache, jobs=jobs, only=item, progress=_sayer(pack, say))
        failed = sum(not one.ok for one in outcomes)
        kept = sum(one.cached for one in outcomes)
        unchanged = f", {kept} of them unchanged" if kept else ""
        say(f"{pack.id} {pack.version}: {len(outcomes) - failed} of {len(outcomes)} items proved{unchanged}")
        wrong += failed
        if receipts and item is None:
            write_receipts(pack, outcomes, receipts)
    return wrong


def _sayer(pack: Pack, say: Callable[[str], None]) -> Callable[[Outcome, int, int], None]:
    return lambda one, _done, _all: say(line(pack, one))


def line(pack: Pack, one: Outcome) -> str:
    """One item's receipt line, or where it is wrong.

    The first columns are what two runs share; the seconds come last.
    """
    if one.proved is None:
        place = f"{pack.path / one.file}:{one.line}" if one.line else str(pack.path / one.file)
        return f"{place}: {one.error}"
    receipt = one.proved.receipt
    how = "unchanged" if one.cached else f"{one.seconds:.1f} s"
    return f"ok  {one.item_id}  {one.proved.kind}  seed {receipt.seed}  {receipt.outcome[:12]}  {how}"


def write_receipts(pack: Pack, outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Write <folder>/<pack>.json: the same bytes from two runs, but for the times, which stand under "seconds"."""
    items = {
        one.item_id: {
            "item_hash": one.proved.receipt.item_hash, "seed": one.proved.receipt.seed,
            "outcome": one.proved.receipt.outcome,
        } if one.proved else {"error": one.error, "line": one.line}
        for one in outcomes
    }  # fmt: skip
    data = {
        "pack": pack.id, "version": pack.version, "versions": dict(versions(pack.preload)), "items": items,
        "seconds": {one.item_id: round(one.seconds, 3) for one in outcomes},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{pack.id}.json"
    place.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place
