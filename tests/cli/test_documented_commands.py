"""The commands that the documentation shows are commands, with options they have."""

import re
import shlex
from pathlib import Path

from cli.every_command import COMMAND

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("README.md"))]
FENCED = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`(clearhead [^`\n]+)`")


def commands(page):
    """Each command as its words, from the blocks of shell and from the lines of text."""
    text = page.read_text(encoding="utf-8")
    shell = re.sub(r"\\\n", " ", "\n".join(FENCED.findall(text)))
    lines = [part.strip() for line in shell.splitlines() for part in re.split(r"&&|\||;", line.split("  #")[0])]
    for line in [*lines, *INLINE.findall(text)]:
        if line.startswith("clearhead "):
            yield shlex.split(line, comments=True)[1:]


def problem(words):
    """Why these words are no command, or None."""
    command = COMMAND
    for word in words:
        names = getattr(command, "commands", {})
        if not names or word.startswith("-"):
            break
        command = names.get(word) or names.get("run")  # `survey MODEL` is `survey run MODEL`
        if command is None:
            return None if word.isupper() else f"no command {word}"
    known = {
        "-h",
        "--help",
        *(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)),
    }
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known]
    return f"no option {', '.join(unknown)}" if unknown else None


def test_what_is_shown_can_be_typed():
    shown = [(page, words) for page in PAGES for words in commands(page)]
    assert len(shown) > 80
    wrong = [
        f"{page.relative_to(ROOT)}: {shlex.join(words)}: {problem(words)}" for page, words in shown if problem(words)
    ]
    assert wrong == []
