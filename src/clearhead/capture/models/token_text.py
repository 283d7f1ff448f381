"""Show tokens as readable text: join bytes to characters, and mark parts of a character."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_LONE = "surrogatepass"  # a lone surrogate in a string is shown as bytes, because no file can hold it
_END = "</w>"  # how some byte pair encodings mark the end of a word
_RAW = ("ByT5Tokenizer", "PerceiverTokenizer")  # one token per byte, written as the character of that number


def letters(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the text that each token stands for, as typed.

    A token that is only a part of a character is that character and the number of the part, as in "日[2/3]". Special
    tokens stay as the tokenizer writes them, and so do WordPiece's "##".

    Args:
        tokenizer: a Hugging Face tokenizer.
        ids: the ids that it returned for a text.
    """
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(list(ids))]
    added = {int(key) for key in getattr(tokenizer, "added_tokens_decoder", {})} | set(tokenizer.all_special_ids)
    literal = [number in added for number in ids]
    if type(tokenizer).__name__ in _RAW:
        parts = [name.encode("latin-1", "replace") if len(name) == 1 else name.encode() for name in names]
    elif _is_byte_level(tokenizer):
        parts = [_from_alphabet(name) for name in names]
    else:
        parts = [_from_sentencepiece(name) for name in names]
    return characters_of_tokens(names, parts, literal)


def pieces_of(encoded: Any, special: Sequence[bool], *texts: str) -> list[str]:
    """Return the text of each token with the space before it; "" for special tokens and later parts of a character.

    Args:
        encoded: the output of a fast tokenizer.
        special: which tokens it added.
        texts: the one or two texts it was given.
    """
    ends, pieces = [0] * len(texts), []
    for (_, stop), segment, is_special in zip(
        encoded.encodings[0].offsets, encoded.sequence_ids(0), special, strict=True
    ):
        if is_special or segment is None:
            pieces.append("")
            continue
        pieces.append(texts[segment][ends[segment] : stop])
        ends[segment] = max(ends[segment], stop)
    return pieces


def readable(tokens: Sequence[str]) -> list[str]:
    """Return the text of tokens from `convert_ids_to_tokens`, without their tokenizer.

    Tokens are read as bytes only if all of them cannot be read in another way.

    >>> readable(["the", "ĠcafÃ©", "Ġ", "æĹ", "¥"])
    ['the', ' café', ' ', '日[1/2]', '日[2/2]']
    >>> readable(["café", "Łódź", "▁far", "##ly"])
    ['café', 'Łódź', ' far', '##ly']
    """
    names = list(tokens)
    alphabet = _alphabet()
    literal = [_is_marked(name) and not _BYTE.fullmatch(name) for name in names]
    unmarked = [name.removesuffix(_END) for name, is_literal in zip(names, literal, strict=True) if not is_literal]
    moved = any(ord(letter) > 255 for name in unmarked for letter in name)  # bytes that are written as other letters
    if moved and all(letter in alphabet for name in unmarked for letter in name):
        parts = [_from_alphabet(name) for name in names]
        try:
            text = b"".join(part for part, is_lit in zip(parts, literal, strict=True) if not is_lit).decode()
        except UnicodeDecodeError:
            return names
        if any(ord(letter) < 32 and letter not in "\t\n\r" for letter in text):
            return names
        return characters_of_tokens(names, parts, literal)
    return characters_of_tokens(names, [_from_sentencepiece(name) for name in names], literal)


def characters_of_tokens(names: Sequence[str], parts: Sequence[bytes], literal: Sequence[bool]) -> list[str]:
    """Name tokens by the characters their bytes make up, together with their neighbours'.

    Args:
        names: the tokens as the tokenizer writes them.
        parts: the bytes of each.
        literal: which tokens keep their names, as special tokens do.
    """
    characters: list[str] = list(names)
    start = 0
    while start < len(names):
        stop = start
        while stop < len(names) and not literal[stop]:
            stop += 1
        characters[start:stop] = _run(parts[start:stop])
        start = stop + 1
    ends = [_END if not lit and name.endswith(_END) else "" for name, lit in zip(names, literal, strict=True)]
    return [name + end for name, end in zip(characters, ends, strict=True)]


def _run(parts: Sequence[bytes]) -> list[str]:
    """Return the names of neighbouring tokens, from their bytes."""
    whole = b"".join(parts)
    owner = [token for token, part in enumerate(parts) for _ in part]  # of each byte
    names = [""] * len(parts)
    place = 0
    while place < len(whole):
        letter, size = _first_character(whole[place : place + 4])
        tokens = sorted(set(owner[place : place + size]))
        for number, token in enumerate(tokens, 1):
            names[token] += letter if len(tokens) == 1 else f"{letter}[{number}/{len(tokens)}]"
        place += size
    return names


def _first_character(raw: bytes) -> tuple[str, int]:
    """Return the first character of some bytes, and its length in bytes; a byte that starts none is "<0xE6>"."""
    for size in range(1, len(raw) + 1):
        try:
            return raw[:size].decode(), size
        except UnicodeDecodeError:
            continue
    return f"<0x{raw[0]:02X}>", 1


def _from_alphabet(name: str) -> bytes:
    """The bytes of a byte-level token; letters outside its alphabet are encoded as UTF-8."""
    alphabet = _alphabet()
    return b"".join(
        bytes([alphabet[letter]]) if letter in alphabet else letter.encode(errors=_LONE)
        for letter in name.removesuffix(_END)
    )


def _from_sentencepiece(name: str) -> bytes:
    """The bytes of a token of any other kind: "▁" is a space, "<0xE6>" a byte."""
    byte = _BYTE.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.removesuffix(_END).replace("▁", " ").encode(errors=_LONE)


def _is_marked(name: str) -> bool:
    """Whether a token is written as special tokens are."""
    return len(name) > 2 and (name[0], name[-1]) in (("<", ">"), ("[", "]"))


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return hasattr(tokenizer, "byte_decoder")
    parts = (backend.decoder, backend.pre_tokenizer)
    return any(part is not None and b"ByteLevel" in part.__getstate__() for part in parts)


@cache
def _alphabet() -> dict[str, int]:
    """Letter -> byte: how byte-level tokenizers write bytes (Radford et al. 2019, GPT-2's encoder.py)."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + index): byte for index, byte in enumerate(others)}
