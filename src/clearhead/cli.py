"""The one door: `clearhead studio · see · check · doctor …`, each with --help.

A command parses, calls one function of a room, and prints. Rooms are imported inside the commands, so that
`clearhead --help` does not wait for torch. Exit codes: 0 done, 1 something was found wrong, 2 it could not be done
(a message says why), 130 stopped by Ctrl-C.
"""

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clearhead import __version__
from clearhead.errors import ClearheadError, ModelError, OptionError
from clearhead.printing import console, say, say_entry, say_json
from clearhead.studio.command import command

TEXT_ENCODING = "utf-8"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


class Door(TyperGroup):
    """Turns what a room raises on purpose into a message and an exit code; anything else is a bug and shows as one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ClearheadError as error:
            say(f"clearhead: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            say("stopped", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=Door,
    help="Multi-head attention you can run, see and learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]
Model = Annotated[
    str | None,
    typer.Option(help="A model folder, or a name in the local Hugging Face cache. Default: the demo model, MiniLM."),
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that a model brings. Read it first.")
]


def main() -> None:
    """The `clearhead` command."""
    try:
        app()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C again, while workers are sent home: at once and quietly


def version(wanted: bool) -> None:
    if wanted:
        say(f"clearhead {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def see(
    text: Annotated[
        str | None, typer.Argument(help="The text to read, or - for standard input; or the path of a picture.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text, or the picture, from this file.")] = None,
    model: Model = None,
    layer: Annotated[str | None, typer.Option(help="Open a head of this layer: a number from 0, or its name.")] = None,
    head: Annotated[int | None, typer.Option(help="Open this head, counted from 0.")] = None,
    rollout: Annotated[bool, typer.Option("--rollout", help="Roll all layers out into one map.")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Say which heads have most of each score.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page here.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a figure here: .png, .svg or .pdf.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Record layers until their queries and keys take this much, as in 500MB.")
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Show what every head of a model attends to in a text, or in a picture.

    With no --layer and --head: all heads, small. With one of them, the other is 0.
    """
    words = read_words(text, file)
    from clearhead import looking
    from clearhead.views import terminal
    from clearhead.views.html import page
    from clearhead.views.listing import listing
    from clearhead.views.rolled import rolled

    reading = looking.look(words, model, trust=trust_remote_code, max_bytes=looking.size(max_memory))
    if rollout:
        reading, layer, head = rolled(reading), layer or "0", head or 0
    number = looking.layer_number(reading, layer)
    if number is not None or head is not None:
        terminal.check(reading, number or 0, head or 0)
    if html is not None:
        said = words if isinstance(words, str) else None
        with looking.progress("drawing") as tell:
            content = page(reading, text=said, model=model, layer=number, head=head, progress=tell)
        write(html, content)
    if png is not None:
        draw(png, reading, number, head)
    if as_json:
        say_json(listing(reading, layer=number, head=head))
    elif scores:
        console().print(terminal.score_table(reading))
    elif html is None and png is None:
        terminal.show(reading, console(), layer=number, head=head)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A model folder, or a name in the local Hugging Face cache.")],
    second: Annotated[str, typer.Argument(help="Another; - stands for the demo model, here and there.")],
    text: Annotated[
        str | None, typer.Argument(help="The text to read, or - for standard input; or the path of a picture.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text, or the picture, from this file.")] = None,
    layer: Annotated[int | None, typer.Option(help="Show where a head of this layer differs, from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Show where this head differs, from 0.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one page here: any head less the other model's.")] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write a figure here: how far apart all heads are, or where one differs.")
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Compare the heads of two models over one text: which are alike, which differ, and where."""
    words = read_words(text, file)
    from clearhead import looking
    from clearhead.views import comparing
    from clearhead.views.html import page

    names = [None if name == "-" else name for name in (first, second)]
    ours, theirs = (looking.look(words, name, trust=trust_remote_code, what=name or "") for name in names)
    found = comparing.compare(ours, theirs)
    one = layer is not None or head is not None
    if html is not None:
        said = words if isinstance(words, str) else None
        with looking.progress("drawing") as tell:
            content = page(ours, text=said, model=names[0], second=theirs, layer=layer, head=head, progress=tell)
        write(html, content)
    if png is not None:
        draw_comparison(png, found, (layer or 0, head or 0) if one else None)
    if as_json:
        say_json(comparing.listing(found))
    elif one:
        screen = console()
        screen.print(comparing.one_head(found, layer or 0, head or 0, screen.width))
    elif html is None and png is None:
        console().print(comparing.overview(found))


app.add_typer(command, name="studio")


@app.command()
def check(
    packs: Annotated[list[Path] | None, typer.Argument(help="Pack folders. Default: the shipped ones.")] = None,
    item: Annotated[str | None, typer.Option(help="Prove this item alone.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many items at a time.")] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Prove unchanged items again.")] = False,
    seeds: Annotated[int, typer.Option(min=2, help="At how many seeds an item with variants must hold.")] = 12,
    watch: Annotated[bool, typer.Option("--watch", help="Check again after every change, until Ctrl-C.")] = False,
    receipts: Annotated[Path, typer.Option(help="Where the receipts and the proofs go.")] = Path(".receipts"),
) -> None:
    """Prove course packs: run every item's programs, confined, and say whether its answer holds."""
    with extra("studio", "proving a pack"):
        from clearhead.course import checking
    agree()

    def run() -> int:
        return checking.check(
            packs or [], item=item, jobs=jobs, fresh=fresh, seeds=seeds, receipts=receipts, say=say_entry
        )

    if watch:
        checking.watch(packs or [], run, say_entry)
    elif run():
        raise typer.Exit(1)


new = typer.Typer(help="Start a course pack, or an item.", no_args_is_help=True)
app.add_typer(new, name="new")


@new.command("pack")
def new_pack(place: Annotated[Path, typer.Argument(help="The folder to make; its name is the pack's id.")]) -> None:
    """Make a pack with one topic and one card that holds."""
    with extra("studio", "starting a pack"):
        from clearhead.course.scaffold import new_pack as make

    say(f"made {make(place)}; `clearhead check {place}` proves it")


@new.command("item")
def new_item(
    pack: Annotated[Path, typer.Argument(help="The pack's folder.")],
    name: Annotated[str, typer.Argument(help="The item's id, as in shape-of-logits.")],
    kind: Annotated[str, typer.Option(help="card, choice, predict, debug, tune, worked, explain, code, order, match.")],
    topic: Annotated[str | None, typer.Option(help="A topic of the pack. Default: the first.")] = None,
) -> None:
    """Write the skeleton of an item; its programs raise until you have written them."""
    with extra("studio", "starting an item"):
        from clearhead.course.scaffold import new_item as make

    say(f"made {make(pack, name, kind, topic)}")


@new.command("schema")
def new_schema(of: Annotated[str, typer.Argument(help="item or pack")] = "item") -> None:
    """Print the JSON schema of an item's front matter, or of pack.toml."""
    with extra("studio", "the schema"):
        from clearhead.course.scaffold import schema

    say(schema(of), nl=False)


@app.command("export")
def export_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder, or the name of a shipped pack.")],
    to: Annotated[str, typer.Option(help="anki, moodle, gift, qti3, qti2 or csv.")],
    out: Annotated[Path | None, typer.Option(help="The file to write. Default: <pack>-<format> here.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if something is not carried over.")] = False,
) -> None:
    """Prove a pack and write it in another program's format. Ends with 1 if something is not carried over."""
    with extra("studio", "exporting a pack"):
        from clearhead.course.exchange import Report
        from clearhead.course.exchange import export_pack as write

        report = Report()
        place, count = write(pack, to, out, strict=strict, report=report)
    say(f"wrote {count} items to {place}")
    if report.losses:
        say(listed(report.losses), err=True)
        raise typer.Exit(1)


@app.command("import")
def import_questions(
    file: Annotated[Path, typer.Argument(help="Anki's .apkg or .txt, GIFT, Moodle .xml, mdbook-quiz .toml, our .csv.")],
    into: Annotated[Path, typer.Option(help="The pack's folder.")],
    topic: Annotated[str | None, typer.Option(help="A topic of the pack. Default: the first.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if something is not carried over.")] = False,
) -> None:
    """Read another program's questions as drafts. Ends with 1 if something is not carried over."""
    with extra("studio", "importing"):
        from clearhead.course.exchange import Report, import_drafts

    report = Report()
    places = import_drafts(file, into, topic, strict=strict, report=report)
    drafts = "1 draft" if len(places) == 1 else f"{len(places)} drafts"
    say(f"{drafts} in {into / 'drafts'}; write the proofs, then move the files to {into / 'items'}")
    if report.losses:
        say(listed(report.losses), err=True)
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what runs on this machine, which kernel is chosen and why, and what is missing."""
    from clearhead import diagnosis

    report = diagnosis.examine()
    if as_json:
        say_json(diagnosis.as_data(report))
    else:
        console().print(diagnosis.as_table(report))


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Where a library of an extra is missing, say how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "clearhead").startswith("clearhead"):
            raise  # ours: a fault, not a missing extra
        raise OptionError(f"{what} needs {error.name}. Run `pip install 'clearhead[{name}]'`.") from error


def agree() -> None:
    """Where this machine cannot confine programs, ask the person at it whether to run them all the same."""
    from clearhead import sandbox

    if sandbox.backend() is None and sys.stdin.isatty():
        say(f"Programs cannot be confined here ({sandbox.explain()}).", err=True)
        if typer.confirm("Run this pack's programs as you, able to do all that you can?", default=False, err=True):
            sandbox.consent()


def read_words(text: str | None, file: Path | None) -> str | Path:
    """The text to read, or the path of a picture: known by its ending and, without --file, by being there."""
    path = file or Path(text or "")
    if path.suffix.lower() in PICTURES and (file is not None or (text is not None and path.is_file())):
        if text is not None and file is not None:
            raise OptionError("both a text and --file were given. Give one of them.")
        return path
    return read_text(text, file)


def read_text(text: str | None, file: Path | None) -> str:
    """The text to read: the argument, a file, or standard input (named by -, or piped in)."""
    if text is not None and file is not None:
        raise OptionError("both a text and --file were given. Give one of them.")
    try:
        if file is not None:
            words, source = file.read_text(encoding=TEXT_ENCODING), str(file)
        elif text == "-" or (text is None and not sys.stdin.isatty()):
            words, source = sys.stdin.buffer.read().decode(TEXT_ENCODING), "standard input"
        elif text is not None:
            words, source = text, "the text"
        else:
            raise OptionError('there is no text to read. Try: clearhead see "The cat sat on the mat"')
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{file or 'standard input'} is not text in UTF-8 ({error.reason}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}. Give the path of a text file.") from error
    if not words.strip():
        raise ModelError(f"{source} is empty. Give at least one word.")
    return words.strip()


def write(path: Path, content: str) -> None:
    """Write a file that a person asked for, and say so where it does not mix with data."""
    try:
        path.write_text(content, encoding=TEXT_ENCODING)
    except OSError as error:
        raise OptionError(
            f"{path} cannot be written: {error.strerror}. Give a file in a folder that exists."
        ) from error
    say(f"wrote {path} ({len(content.encode()) / 1e6:.1f} MB)", err=True)


def draw(path: Path, reading: Any, layer: int | None, head: int | None) -> None:
    """Write a figure that a person asked for: all heads, or the one that is open."""
    plot = plotting()
    one = layer is not None or head is not None
    plot.save(plot.head(reading, layer or 0, head or 0) if one else plot.grid(reading), path)
    say(f"wrote {path}", err=True)


def draw_comparison(path: Path, found: Any, one: tuple[int, int] | None) -> None:
    """Write how far apart all heads of two models are, or where one of them differs."""
    from clearhead.views.comparing import between

    plot = plotting()
    models = f"{found.first.model_name} less {found.second.model_name}"
    if one is None:
        figure = plot.divergence(found)
    else:
        values = between(found, *one, 256)
        figure = plot.difference(values, found.first.tokens, f"layer {one[0]}, head {one[1]}: {models}")
    plot.save(figure, path)
    say(f"wrote {path}", err=True)


def plotting() -> Any:
    """The room's module that needs matplotlib."""
    try:
        from clearhead.views import plot
    except ImportError as error:
        raise OptionError("a figure needs matplotlib. Run `pip install 'clearhead[views]'`.") from error
    return plot


def listed(losses: Iterable[object]) -> str:
    """What is not carried over, an entry a line."""
    return "\n".join(["not carried over:", *("  " + str(loss).replace("\n", "\n    ") for loss in losses)])
