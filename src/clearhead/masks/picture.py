"""Draw a mask as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clearhead.spec import BlockState

if TYPE_CHECKING:
    from clearhead.masks.mask import Mask

LARGEST = 32  # rows and columns up to which every entry is drawn


def picture(mask: Mask, length: int | None = None, keys: int | None = None) -> str:
    """Draw a mask: entry by entry up to 32×32, else by blocks. The first batch entry and head are drawn.

    Args:
        length, keys: L and S to draw; default the mask's own sizes, else 16.

    >>> from clearhead import masks
    >>> print(picture(masks.causal() & masks.sliding_window(60), 100, 40))
    causal() & sliding_window(60), queries down, keys right, blocks of 4 (■ full, ▒ mixed, · empty)
    ▒·········
    ■▒········
    ■■▒·······
    ■■■▒······
    ■■■■▒·····
    ■■■■■▒····
    ■■■■■■▒···
    ■■■■■■■▒··
    ■■■■■■■■▒·
    ■■■■■■■■■▒
    ■■■■■■■■■■
    ■■■■■■■■■■
    ■■■■■■■■■■
    ■■■■■■■■■■
    ■■■■■■■■■■
    ▒■■■■■■■■■
    ·▒■■■■■■■■
    ··▒■■■■■■■
    ···▒■■■■■■
    ····▒■■■■■
    ·····▒■■■■
    ······▒■■■
    ·······▒■■
    ········▒■
    ·········▒
    """
    *_, own_length, own_keys = mask.sizes()
    length = length or own_length or own_keys or 16
    keys = keys or own_keys or length
    title = f"{mask!r}, queries down, keys right"
    if max(length, keys) <= LARGEST:
        entries = mask.dense(length, keys)[0, 0].tolist()
        return "\n".join([title, *("".join("■" if may else "·" for may in row) for row in entries)])
    size = -(-max(length, keys) // LARGEST)
    signs = {BlockState.FULL: "■", BlockState.MIXED: "▒", BlockState.EMPTY: "·"}
    rows = ["".join(signs[state] for state in row) for row in mask.blocks(length, keys, size)]
    return "\n".join([f"{title}, blocks of {size} (■ full, ▒ mixed, · empty)", *rows])
