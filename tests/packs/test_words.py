"""Words that course text must not hold: they are not what a teacher would say. Programs are not read."""

import re
from pathlib import Path

import pytest

from clearhead import course

BANNED = (
    "nought", "in place of", "shall", "dear", "whoever", "whereof", "thereof", "wherein", "hence", "thus", "behoves",
    "in this house", "turned round", "has it", "have they", "wants an", "wants the", "wants it",
    "whosoever", "amongst", "whilst", "howsoever", "in the place of", "anew", "upon", "unto", "lest", "albeit",
    "thereby", "whereby", "hereby", "therein", "herein", "thereto", "thereupon", "therefrom", "wherefore", "whither",
    "hitherto", "henceforth", "forthwith", "aforesaid", "of a sudden", "the other way about", 
    "is no more", "has its say", "makes dear", "repairs it", "who says so", "says so believes", "so many times",
    "of like", "want of", "may not but", "none other", "which shape", "which shapes", "what stands there",
)  # fmt: skip
# "To four digits" is 10.00 to some and 10.0003 to others: a rounded answer counts decimals.
_DIGITS = re.compile(r"\b(?:to|keep|in) (?:\w+ )?(?:two|three|four|five) digits|\b(?:third|fourth|fifth) digit\b")
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`|\$[^$]*\$", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r'"((?:[^"\\\n]|\\.)*)"')  # what a program shows a learner
_FENCE = re.compile(r"^(?:```|~~~)python.*?^(?:```|~~~)", re.DOTALL | re.MULTILINE)
PACKS = [path for path in course.shipped() if path.name == "attention"]


def prose(file: Path) -> str:
    """The text of a file without its programs and front matter."""
    text = file.read_text(encoding="utf-8")
    if text.startswith("+++"):
        head, _, rest = text[3:].partition("+++")
        text = "\n".join(re.findall(r'^title = "(.*)"$', head, re.MULTILINE)) + rest
    return _CODE.sub(" ", text)


def shown(file: Path) -> str:
    """The sentences in the programs of a file: texts in double quotes of four words or more."""
    programs = "\n".join(_FENCE.findall(file.read_text(encoding="utf-8")))
    return "\n".join(text for text in _SENTENCE.findall(programs) if text.count(" ") >= 3)


def banned(text: str) -> list[str]:
    """The banned words of a text, in the order of the list."""
    flat = " ".join(text.lower().split())
    return [word for word in BANNED if re.search(rf"\b{re.escape(word)}\b", flat)] + _DIGITS.findall(flat)


def test_what_is_found() -> None:
    assert banned("The value shall be nought, in place\nof one.") == ["nought", "in place of", "shall"]
    assert banned("A marshal is not wanted.") == []
    assert banned("What is it, to four\ndigits? The fourth digit shows.") == ["to four digits", "fourth digit"]
    assert banned("To four decimals, of a number of four digits.") == []


def test_sentences_that_programs_show_are_read(tmp_path: Path) -> None:
    file = tmp_path / "item.md"
    file.write_text(
        '```python check\nname = "in place of"\nsaid = f"the value shall be {x} here"\n```\n', encoding="utf-8"
    )
    assert banned(shown(file)) == ["shall"]


@pytest.mark.parametrize("pack", PACKS, ids=lambda path: path.name)
def test_no_text_of_a_shipped_pack_holds_them(pack: Path) -> None:
    found = {
        str(file.relative_to(pack)): banned(f"{prose(file)}\n{shown(file)}")
        for file in [*pack.glob("items/*.md"), *pack.glob("topics/*/*.md")]
    }
    assert {name: words for name, words in found.items() if words} == {}
    believed = (pack / "pack.toml").read_text(encoding="utf-8")
    assert banned(believed) == []
