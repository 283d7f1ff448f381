"""`clearhead studio` serves the course; `clearhead studio user …` manages the learners of a shared studio."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clearhead import printing
from clearhead.errors import OptionError


class _Studio(TyperGroup):
    """The group of `studio`, which tells somebody who names a pack after it how a pack is given."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and (Path(args[0]) / "pack.toml").is_file():
            raise OptionError(f"a pack is given with --pack: clearhead studio --pack {args[0]}")
        return super().resolve_command(ctx, args)


command = typer.Typer(cls=_Studio, invoke_without_command=True)
user = typer.Typer(help="The learners of a shared studio: add, list, reset, remove.", no_args_is_help=True)
command.add_typer(user, name="user")

Data = Annotated[Path | None, typer.Option(help="The folder for the studio's database and files.")]
Url = Annotated[str | None, typer.Option(help="Keep attempts in PostgreSQL: postgresql://USER@HOST/NAME")]
Address = Annotated[
    str | None, typer.Option(help="The address at which learners reach it, as in https://studio.example")
]
Name = Annotated[str, typer.Argument(help="The name with which the learner logs in.")]


@command.callback()
def studio(
    context: typer.Context,
    port: Annotated[int, typer.Option(help="The port to serve on. If it is taken, the next free one is used.")] = 8765,
    host: Annotated[
        str, typer.Option(help="The address to listen on. With any but this machine's own, learners must log in.")
    ] = "127.0.0.1",
    data: Data = None,
    database: Url = None,
    pack: Annotated[list[Path] | None, typer.Option(help="Teach this pack instead of the shipped ones.")] = None,
    accounts: Annotated[
        bool, typer.Option("--accounts", help="Require a log-in on this machine's own address too.")
    ] = False,
    certificate: Annotated[Path | None, typer.Option(help="Serve HTTPS with this certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's private key (PEM).")] = None,
    url: Address = None,
    token: Annotated[
        bool,
        typer.Option(
            help="Ask each browser once for the token in the printed address; other users of this machine can reach "
            "the studio too."
        ),
    ] = True,
    workers: Annotated[
        int | None,
        typer.Option(help="How many processes serve it. Default: one per core when shared on PostgreSQL, else 1."),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="The address of a proxy whose X-Forwarded headers are trusted.")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser if there is a graphical one.")] = True,
) -> None:
    """Serve the course as a web page, by default on this machine only; Ctrl-C stops it."""
    if context.invoked_subcommand:
        return
    from clearhead.studio.app import serving
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
    serving.serve(chosen, browser=browser)


@user.command("add")
def add(name: Name, data: Data = None, database: Url = None, url: Address = None) -> None:
    """Add a learner: print the link at which they choose a password."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database, url) as opened:
        printing.show(opened.invitation(opened.accounts.add(name)))


@user.command("reset")
def reset(name: Name, data: Data = None, database: Url = None, url: Address = None) -> None:
    """Print a new link for a learner; the old password works until the link is used."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database, url) as opened:
        printing.show(opened.invitation(opened.accounts.reset(name)))


@user.command("remove")
def remove(name: Name, data: Data = None, database: Url = None) -> None:
    """Remove a learner, who is logged out at once. The answers stay in the database."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database) as opened:
        removed = opened.accounts.remove(name)
    printing.show(f"{removed.name} is removed; the answers stay")


@user.command("list")
def show(data: Data = None, database: Url = None) -> None:
    """List every learner, and whether they have accepted the invitation."""
    from clearhead.studio.accounts.users import open_users

    with open_users(data, database) as opened:
        everyone = opened.accounts.all()
    for account in everyone:
        printing.show(f"{account.name}  {account.state}")
    if not everyone:
        printing.report("there are no learners yet; `clearhead studio user add NAME` adds one")
