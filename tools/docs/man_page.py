"""Write the manual page src/clearhead/cli/clearhead.1 from the commands themselves.

python tools/docs/man_page.py           print it
python tools/docs/man_page.py --write   write the file; `man src/clearhead/cli/clearhead.1` shows it
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import clearhead
from clearhead.cli import app, exit_status

FILE = Path(__file__).parents[2] / "src" / "clearhead" / "cli" / "clearhead.1"
ENVIRONMENT = {
    "CLEARHEAD_ACCELERATE": "If set, torch's own attention runs on Clearhead's kernels once torch is imported.",
    "CLEARHEAD_DEBUG": "If set, a fault in Clearhead shows its traceback.",
    "CLEARHEAD_KERNEL_TARGET": "The CPU target of the native kernels: avx512, avx2 and others that doctor lists.",
    "CLEARHEAD_MODELS": "With the value minimal, no model is fetched unasked.",
    "CLEARHEAD_TUNE": "With the value 0, the figures that tune keeps are not read.",
    "NO_COLOR": "If set, output has no colour.",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the file")
    if parser.parse_args().write:
        FILE.write_text(manual(), encoding="utf-8")
    else:
        print(manual(), end="")
    return 0


def manual() -> str:
    """Return the page in man(7)'s macros."""
    lines = [
        f'.TH CLEARHEAD 1 "" "clearhead {clearhead.__version__}" "User Commands"',
        ".SH NAME", "clearhead \\- multi-head attention you can run, see and learn",
        ".SH SYNOPSIS", ".B clearhead", ".RI [ options ] \" command \" [ arguments ]",
        ".SH COMMANDS",
    ]  # fmt: skip
    for path, command in commands(typer.main.get_command(app)):
        lines += [
            f".SS {escaped(' '.join(('clearhead', *path, *arguments(command))))}",
            *paragraphs(command.help or ""),
        ]
        for parameter in command.params:
            if getattr(parameter, "hidden", False) or parameter.name == "help":
                continue
            lines += [".TP", f".B {escaped(name_of(parameter))}", escaped(getattr(parameter, "help", None) or "")]
    lines += [".SH EXIT STATUS"]
    for status, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", exit_status.__doc__ or "", re.M):
        lines += [".TP", f".B {status}", escaped(meaning.replace("`", ""))]
    lines += [".SH ENVIRONMENT"]
    for name, meaning in ENVIRONMENT.items():
        lines += [".TP", f".B {name}", escaped(meaning)]
    return "\n".join(lines) + "\n"


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its path, including groups that are commands themselves."""
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        if not inner or command.invoke_without_command:
            yield (*path, name), command
        if inner:
            yield from commands(command, (*path, name))


def arguments(command: Any) -> list[str]:
    given = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    return [name_of(parameter) if parameter.required else f"[{name_of(parameter)}]" for parameter in given]


def name_of(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name).upper()
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def paragraphs(text: str) -> list[str]:
    return [line for part in text.split("\n\n") for line in (".PP", escaped(" ".join(part.split())))]


def escaped(text: str) -> str:
    """Escape text for roff, so that it contains no request; hyphens that people copy stay hyphens."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


if __name__ == "__main__":
    sys.exit(main())
