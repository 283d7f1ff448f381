"""Every command of `clearhead`, as the command line itself knows them."""

from collections.abc import Iterator
from typing import Any

import typer

from clearhead import cli

COMMAND = typer.main.get_command(cli.app)


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _commands(one, (*path, name))
            if one.invoke_without_command:
                yield (*path, name), one
        else:
            yield (*path, name), one


ALL = dict(_commands(COMMAND))  # its words, as ("studio", "user", "add"); a group that runs by itself too
WITH_JSON = {name for name, command in ALL.items() if any("--json" in parameter.opts for parameter in command.params)}
