"""`clearhead studio`, and `clearhead studio user …` for a studio that several people share.

Imports what serves pages only when a command runs, so that `clearhead --help` comes at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing

command = typer.Typer(invoke_without_command=True)
user = typer.Typer(help="The learners of a shared studio: add, list, reset, remove.", no_args_is_help=True)
command.add_typer(user, name="user")

Data = Annotated[Path | None, typer.Option(help="The folder that the studio keeps its work in.")]
Url = Annotated[str | None, typer.Option(help="Keep attempts in PostgreSQL: postgresql://USER@HOST/NAME")]
Address = Annotated[str | None, typer.Option(help="Where learners reach it, as in https://studio.example")]
Name = Annotated[str, typer.Argument(help="What the learner logs in as.")]


@command.callback()
def studio(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="The port to serve on; a taken one gets the next free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Any but this machine's own asks learners to log in.")
    ] = "127.0.0.1",
    data: Data = None,
    database: Url = None,
    pack: Annotated[list[Path] | None, typer.Option(help="Teach this pack in place of the shipped ones.")] = None,
    accounts: Annotated[bool, typer.Option("--accounts", help="Ask who it is on this machine's address too.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="Serve https with this certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).")] = None,
    url: Address = None,
    token: Annotated[
        bool,
        typer.Option(
            help="Ask a browser once for the token in the printed address: other users of this machine reach it too."
        ),
    ] = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes that serve it; one a core when shared on PostgreSQL, else one.")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="The address of a proxy whose X-Forwarded headers are believed.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser, if there is one.")] = True,
) -> None:
    """Learn attention in a web page served on this machine alone; Ctrl-C stops it."""
    if context.invoked_subcommand:
        return
    from clearhead.studio.app import serving as serve
    from clearhead.studio.web.settings import Settings

    chosen = Settings(
        data=Settings().data if data is None else data,
        host=host,
        port=port,
        packs=tuple(pack) if pack else None,
        database=database,
        accounts=accounts,
        certificate=certificate,
        key=key,
        url=url,
        workers=workers,
        token=None if token else "",
        proxies=tuple(trusted_proxy or ()),
    )
    serve.serve(chosen, browser=browser)


@user.command("add")
def add(name: Name, data: Data = None, database: Url = None, url: Address = None) -> None:
    """Invite somebody: prints the link with which they choose a password."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database, url) as here:
        printing.show(here.invitation(here.accounts.add(name)))


@user.command("reset")
def reset(name: Name, data: Data = None, database: Url = None, url: Address = None) -> None:
    """Print a new link for a learner; the old password holds until it is used."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database, url) as here:
        printing.show(here.invitation(here.accounts.reset(name)))


@user.command("remove")
def remove(name: Name, data: Data = None, database: Url = None) -> None:
    """Let a learner in no more, now. The answers stay in the database."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database) as here:
        removed = here.accounts.remove(name)
    printing.show(f"{removed.name} is let in no more; the answers stay")


@user.command("list")
def show(data: Data = None, database: Url = None) -> None:
    """Name every learner, and say who has taken up the invitation."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database) as here:
        for account in here.accounts.all():
            printing.show(f"{account.name}  {account.state}")
