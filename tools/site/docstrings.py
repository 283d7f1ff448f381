"""Prepare docstrings for mkdocstrings: rename `Example:` to its section `Examples:`, fence other sessions as code."""

import re
from typing import Any

import griffe

SESSION = re.compile(r"(?:^ *>>> .*\n?(?:^ *\S.*\n?)*)", re.M)


class Programs(griffe.Extension):
    """Marks the interactive sessions in docstrings, which Markdown would read as quotations."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, as griffe finds it."""
        if obj.docstring:
            obj.docstring.value = marked(obj.docstring.value)


def marked(text: str) -> str:
    """Return the docstring with its sessions fenced.

    >>> print(marked("Adds.\\n\\nExample:\\n    >>> 1 + 1\\n    2\\n").replace("`", "'"))
    Adds.
    <BLANKLINE>
    Examples:
        >>> 1 + 1
        2
    <BLANKLINE>
    """
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    before, section, after = text.partition("\nExamples:\n")
    return SESSION.sub(lambda match: f"```pycon\n{match[0].rstrip()}\n```\n", before) + section + after


__all__ = ["Programs"]
