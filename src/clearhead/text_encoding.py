"""Decode a text file of another program: UTF-8 or UTF-16, the encoding that an XML declaration names, or a given one.

An 8-bit encoding such as Windows-1252 is never guessed: each of them decodes nearly every file, and all but one of them
to wrong letters.
"""

import codecs
import re

from clearhead.errors import OptionError

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_DECLARED = re.compile(rb"""\s*<\?xml\s[^<>]{0,200}?\bencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._-]{0,39})["']""")
# Python's names of the encodings of text files. Others, such as punycode, are no files', and slow on hostile input.
_OF_FILES = re.compile(
    r"ascii|utf-(?:8(?:-sig)?|(?:16|32)(?:-[bl]e)?)|iso8859-\d+|cp\d{3,4}|koi8-[rtu]|mac-\w+|kz1048|ptcp154|tis-620"
    r"|shift_jis\w*|euc_\w+|iso2022_\w+|gb2312|gbk|gb18030|hz|big5\w*|johab"
)
_SAMPLE = 4096  # bytes in which the zeros of UTF-16 are counted


class UndecodableError(ValueError):
    """The bytes are not text in the encoding. `line` counts from 1; str() says what is wrong, and what to do."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.line = line


def checked_encoding(name: str) -> str:
    """Return Python's name of an encoding of text files.

    >>> checked_encoding("Windows-1252")
    'cp1252'

    Raises:
        OptionError: there is no such encoding.
    """
    codec = _known(name)
    if codec is None:
        raise OptionError(f"no encoding {name!r}; expected a name such as utf-8, utf-16, windows-1252 or shift_jis")
    return codec


def decode_text(data: bytes, encoding: str | None = None, *, remedy: str = "Save it as UTF-8.") -> str:
    """Return the text in these bytes, without a byte order mark.

    Args:
        encoding: overrides what the bytes say themselves.
        remedy: what to do about bytes in an unknown encoding, a sentence.
    Raises:
        OptionError: there is no such encoding. UndecodableError: the bytes are not text in it.

    >>> decode_text("é".encode("utf-16")), decode_text(b'<?xml version="1.0" encoding="ISO-8859-1"?><q>\\xe9</q>')[-5:]
    ('é', 'é</q>')
    """
    name = checked_encoding(encoding) if encoding else _said_by(data)
    try:
        return _decoded(data, name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(name, "replace")
        line = before.count("\n") + 1
        if name in ("utf-8", "utf-8-sig"):
            raise UndecodableError(f"is not UTF-8 text ({_evidence(data, error.start)}). {remedy}", line) from None
        label = encoding or name
        raise UndecodableError(f"is not text in {label} ({error.reason}). Name the encoding it has.", line) from None


def with_unix_lines(text: str) -> str:
    """Return the text with every line end as a newline, as files in text mode are read."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes, name: str) -> str:
    """Decode; what is called Latin-1 or ASCII is read as browsers read it (WHATWG, Encoding, 4.2).

    Programs on Windows call Windows-1252 so, and its quotation marks are control characters in Latin-1.
    """
    if name in ("ascii", "iso8859-1"):
        try:
            return data.decode("utf-8" if name == "ascii" else "cp1252")
        except UnicodeDecodeError:
            pass  # it has bytes that the wider encoding lacks: read as what it is called
    return data.decode(name)


def _known(name: str) -> str | None:
    try:
        codec = codecs.lookup(name).name
    except (LookupError, ValueError):  # ValueError: a null character
        return None
    return codec if _OF_FILES.fullmatch(codec) else None


def _said_by(data: bytes) -> str:
    """Return the encoding that the bytes show: by their mark, the zeros of UTF-16, an XML declaration; else UTF-8."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    sample = data[:_SAMPLE]
    if len(data) % 2 == 0 and sample.count(0) * 4 > len(sample):  # most Latin letters have a zero byte in UTF-16
        first, second = sample[::2].count(0), sample[1::2].count(0)
        if not min(first, second):
            return "utf-16-be" if first else "utf-16-le"
    match = _DECLARED.match(data)
    declared = _known(match[1].decode("ascii")) if match else None
    if declared is None or declared.startswith(("utf-16", "utf-32")):  # these have no declaration in ASCII
        return "utf-8"
    return declared


def _evidence(data: bytes, at: int) -> str:
    """Return the first byte that is not UTF-8, and how its word reads in the commonest other encoding."""
    begin = max(data.rfind(blank, at - 40 if at > 40 else 0, at) for blank in (b" ", b"\n", b"\t", b",", b";")) + 1
    word = re.match(rb"[^\s,;]{1,60}", data[max(begin, at - 40) :])
    shown = word[0].decode("cp1252", "replace") if word else ""
    reads = f", in windows-1252 {shown!r}" if shown.isprintable() and "\ufffd" not in shown else ""
    return f"byte 0x{data[at]:02x}{reads}"
