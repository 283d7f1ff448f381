"""The one door: `clearhead studio · see · check · doctor …`, each with --help.

A command parses, calls one function of a room, and prints. Rooms are imported inside the commands, so that
`clearhead --help` does not wait for torch. `failure.py` says how a command ends where that did not go well.
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from clearhead import __version__, failure, files, printing, scratch, sizes
from clearhead.errors import ModelError, OptionError
from clearhead.studio.command import command

TEXT_ENCODING = "utf-8"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".ppm")


app = typer.Typer(
    cls=failure.Door,
    help="Multi-head attention you can run, see and learn.",
    epilog=failure.STATUSES,
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
Target = Annotated[
    str | None, typer.Option(help="What the decoder of an encoder-decoder reads: a translation of the text, say.")
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that a model brings. Read it first.")
]


def main() -> None:
    """The `clearhead` command."""
    failure.run(app)


def version(wanted: bool) -> None:
    if wanted:
        printing.show(f"clearhead {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    scratch.sweep()


@app.command()
def see(
    text: Annotated[
        str | None, typer.Argument(help="The text to read, or - for standard input; or the path of a picture.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text, or the picture, from this file.")] = None,
    target: Target = None,
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
    from clearhead.views.checks import check_head
    from clearhead.views.listing import listing
    from clearhead.views.page.html import page
    from clearhead.views.rollout import rolled

    room = sizes.size(max_memory, "--max-memory")
    reading = looking.look(words, model, target=target, trust=trust_remote_code, max_bytes=room)
    if rollout:
        reading, layer, head = rolled(reading), layer or "0", head or 0
    number = looking.layer_number(reading, layer)
    if number is not None or head is not None:
        check_head(reading, number or 0, head or 0)
    if html is not None:
        said = words if isinstance(words, str) else None
        with looking.progress("drawing") as tell:
            content = page(reading, text=said, model=model, target=target, layer=number, head=head, progress=tell)
        write(html, content)
    if png is not None:
        draw(png, reading, number, head)
    if as_json:
        printing.show_json(listing(reading, layer=number, head=head))
    elif scores:
        printing.console().print(terminal.score_table(reading))
    elif html is None and png is None:
        terminal.show(reading, printing.console(), layer=number, head=head)


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A model folder, or a name in the local Hugging Face cache.")],
    second: Annotated[str, typer.Argument(help="Another; - stands for the demo model, here and there.")],
    text: Annotated[
        str | None, typer.Argument(help="The text to read, or - for standard input; or the path of a picture.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text, or the picture, from this file.")] = None,
    target: Target = None,
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
    from clearhead.views import comparison, terminal_comparison
    from clearhead.views.page.html import page

    names = [None if name == "-" else name for name in (first, second)]
    ours, theirs = (
        looking.look(words, name, target=target, trust=trust_remote_code, what=name or "") for name in names
    )
    found = comparison.compare(ours, theirs)
    one = layer is not None or head is not None
    if html is not None:
        said = words if isinstance(words, str) else None
        with looking.progress("drawing") as tell:
            content = page(
                ours, text=said, model=names[0], target=target, second=theirs, layer=layer, head=head, progress=tell
            )
        write(html, content)
    if png is not None:
        draw_comparison(png, found, (layer or 0, head or 0) if one else None)
    if as_json:
        printing.show_json(comparison.listing(found))
    elif one:
        screen = printing.console()
        screen.print(terminal_comparison.one_head(found, layer or 0, head or 0, screen.width))
    elif html is None and png is None:
        printing.console().print(terminal_comparison.overview(found))


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
    from clearhead.course import checking

    chosen = checking.with_item(packs or [], item)
    agree()

    def run() -> int:
        return checking.check(
            chosen, item=item, jobs=jobs, fresh=fresh, seeds=seeds, receipts=receipts, say=printing.show_entry
        )

    if watch:
        checking.watch(chosen, run, printing.show_entry)
    elif run():
        raise typer.Exit(1)


new = typer.Typer(help="Start a course pack, or an item.", no_args_is_help=True)
app.add_typer(new, name="new")


@new.command("pack")
def new_pack(place: Annotated[Path, typer.Argument(help="The folder to make; its name is the pack's id.")]) -> None:
    """Make a pack with one topic and one card that holds."""
    from clearhead.course.scaffold import new_pack as make

    printing.show(f"made {make(place)}; `clearhead check {place}` proves it")


@new.command("item")
def new_item(
    pack: Annotated[Path, typer.Argument(help="The pack's folder.")],
    name: Annotated[str, typer.Argument(help="The item's id, as in shape-of-logits.")],
    kind: Annotated[str, typer.Option(help="card, choice, predict, debug, tune, worked, explain, code, order, match.")],
    topic: Annotated[str | None, typer.Option(help="A topic of the pack. Default: the first.")] = None,
) -> None:
    """Write the skeleton of an item; its programs raise until you have written them."""
    from clearhead.course.scaffold import new_item as make

    printing.show(f"made {make(pack, name, kind, topic)}")


@new.command("schema")
def new_schema(of: Annotated[str, typer.Argument(help="item or pack")] = "item") -> None:
    """Print the JSON schema of an item's front matter, or of pack.toml."""
    from clearhead.course.scaffold import schema

    printing.show(schema(of), end="")


@app.command("export")
def export_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder, or the name of a shipped pack.")],
    to: Annotated[str, typer.Option(help="anki, moodle, gift, qti3, qti2 or csv.")],
    out: Annotated[Path | None, typer.Option(help="The file to write. Default: <pack>-<format> here.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if something is not carried over.")] = False,
) -> None:
    """Prove a pack and write it in another program's format. Ends with 1 if something is not carried over."""
    from clearhead.course.exchange import Report
    from clearhead.course.exchange import export_pack as write

    report = Report()
    place, count = write(pack, to, out, strict=strict, report=report)
    printing.show(f"wrote {count} items to {place}")
    if report.losses:
        printing.say(listed(report.losses))
        raise typer.Exit(1)


@app.command("import")
def import_questions(
    file: Annotated[Path, typer.Argument(help="Anki's .apkg or .txt, GIFT, Moodle .xml, mdbook-quiz .toml, our .csv.")],
    into: Annotated[Path, typer.Option(help="The pack's folder.")],
    topic: Annotated[str | None, typer.Option(help="A topic of the pack. Default: the first.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if something is not carried over.")] = False,
) -> None:
    """Read another program's questions as drafts. Ends with 1 if something is not carried over."""
    from clearhead.course.exchange import Report, import_drafts

    report = Report()
    places = import_drafts(file, into, topic, strict=strict, report=report)
    drafts = "1 draft" if len(places) == 1 else f"{len(places)} drafts"
    printing.show(f"{drafts} in {into / 'drafts'}; write the proofs, then move the files to {into / 'items'}")
    if report.losses:
        printing.say(listed(report.losses))
        raise typer.Exit(1)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what runs on this machine, which kernel is chosen and why, and what is missing."""
    from clearhead import diagnosis

    report = diagnosis.examine()
    if as_json:
        printing.show_json(diagnosis.as_data(report))
    else:
        printing.console().print(diagnosis.as_table(report))


def agree() -> None:
    """Where this machine cannot confine programs, ask the person at it whether to run them all the same."""
    from clearhead import sandbox

    if sandbox.backend() is None and sys.stdin.isatty():
        printing.say(f"Programs cannot be confined here ({sandbox.explain()}).")
        if typer.confirm("Run this pack's programs as you, able to do all that you can?", default=False, err=True):
            sandbox.consent()


def read_words(text: str | None, file: Path | None) -> str | Path:
    """The text to read, or the path of a picture: known by its ending, and without --file by having no spaces."""
    path = file or Path(text or "")
    there, is_file = os.path.exists(path), os.path.isfile(path)  # noqa: PTH110, PTH113 — no text is too long for these
    if path.suffix.lower() not in PICTURES:
        if file is None and is_file and text:
            printing.say(f"clearhead: {text} is read as a text. To read the file of that name, give --file {text}")
        return read_text(text, file)
    if text is not None and file is not None:
        raise OptionError("both a text and --file were given. Give one of them.")
    if file is None and not there and not _is_path(text or ""):
        return read_text(text, file)
    if not is_file:
        why = "is not a file" if there else "is not there"
        raise ModelError(f"{path} {why}. Give the path of a picture file; a text to read may come from - too.")
    return path


def _is_path(text: str) -> bool:
    """Whether it names a place in the file system, whether or not something is there."""
    return text.startswith(("/", "./", "../", "~")) or not re.search(r"\s", text)


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
            words, source = os.fsencode(text).decode(TEXT_ENCODING), "the text"
        else:
            raise OptionError('there is no text to read. Try: clearhead see "The cat sat on the mat"')
    except UnicodeError as error:
        raise ModelError(
            f"{file or ('the text' if text not in (None, '-') else 'standard input')} is not text in UTF-8 "
            f"({error.reason if isinstance(error, UnicodeDecodeError) else 'a character is not'}). Save it as UTF-8."
        ) from error
    except (OSError, ValueError) as error:
        raise files.unreadable(file or "standard input", error) from error
    if not words.strip():
        raise ModelError(f"{source} is empty. Give at least one word.")
    return words.strip()


def write(path: Path, content: str) -> None:
    """Write a file that a person asked for, and say so where it does not mix with data."""
    try:
        path.write_text(content, encoding=TEXT_ENCODING)
    except (OSError, ValueError) as error:
        raise files.unwritable(path, error) from error
    printing.say(f"wrote {path} ({len(content.encode()) / 1e6:.1f} MB)")


def draw(path: Path, reading: Any, layer: int | None, head: int | None) -> None:
    """Write a figure that a person asked for: all heads, or the one that is open."""
    plot = plotting()
    one = layer is not None or head is not None
    plot.save(plot.head(reading, layer or 0, head or 0) if one else plot.grid(reading), path)
    printing.say(f"wrote {path}")


def draw_comparison(path: Path, found: Any, one: tuple[int, int] | None) -> None:
    """Write how far apart all heads of two models are, or where one of them differs."""
    from clearhead.views.comparison import between
    from clearhead.views.token_axes import layer_lines

    plot = plotting()
    models = f"{found.first.model_name} less {found.second.model_name}"
    if one is None:
        figure = plot.divergence(found)
    else:
        values = between(found, *one, 256)
        queries, keys = layer_lines(found.first, one[0])
        title = f"layer {one[0]}, head {one[1]}: {models}"
        figure = plot.difference(values, queries.tokens, title, keys=keys.tokens)
    plot.save(figure, path)
    printing.say(f"wrote {path}")


def plotting() -> Any:
    """The module that draws figures; loaded when one is drawn."""
    from clearhead.views import plot

    return plot


def listed(losses: Iterable[object]) -> str:
    """What is not carried over, an entry a line."""
    return "\n".join(["not carried over:", *("  " + str(loss).replace("\n", "\n    ") for loss in losses)])
