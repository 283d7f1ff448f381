"""`clearhead new pack`, `new item` and `new schema`: start a course pack or an item."""

from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing

command = typer.Typer(help="Start a course pack or an item.", no_args_is_help=True)


@command.command("pack")
def new_pack(
    place: Annotated[Path, typer.Argument(help="The folder to make; its name becomes the pack's id.")],
) -> None:
    """Make a pack with one topic and one card that passes the check."""
    from clearhead.course.pack import scaffold

    printing.show(f"made {scaffold.new_pack(place)}; `clearhead check {place}` proves it")


@command.command("item")
def new_item(
    pack: Annotated[Path, typer.Argument(help="The pack's folder.")],
    name: Annotated[str, typer.Argument(help="The item's id, as in shape-of-logits.")],
    kind: Annotated[str, typer.Option(help="card, choice, predict, debug, tune, worked, explain, code, order, match.")],
    topic: Annotated[str | None, typer.Option(help="A topic of the pack. Default: the first.")] = None,
) -> None:
    """Write the skeleton of an item. Its programs raise until you have written them."""
    from clearhead.course.pack import scaffold

    printing.show(f"made {scaffold.new_item(pack, name, kind, topic)}")


@command.command("schema")
def new_schema(of: Annotated[str, typer.Argument(help="item or pack")] = "item") -> None:
    """Print the JSON schema of an item's front matter or of pack.toml."""
    from clearhead.course.pack import scaffold

    printing.show(scaffold.schema(of), end="")
