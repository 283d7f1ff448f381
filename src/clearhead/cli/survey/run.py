"""`clearhead survey MODEL DATA`: survey the heads of a model over a corpus."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clearhead import printing
from clearhead.cli.output import Json
from clearhead.cli.progress import Tell, progress
from clearhead.cli.reading import Trust
from clearhead.cli.survey import options

if TYPE_CHECKING:
    from clearhead.survey import Survey


def run(
    model: options.Model,
    data: options.Data,
    out: options.Out,
    ask: options.Ask = options.ASKS,
    column: options.Column = "text",
    texts: options.Texts = "line",
    split: options.Split = None,
    limit: options.Limit = None,
    sample: options.Sample = 64,
    max_length: options.MaxLength = None,
    part: options.PartTexts = 512,
    batch: options.BatchTokens = 2048,
    workers: options.Workers = None,
    threads: options.Threads = 1,
    ray: options.OnRay = None,
    address: options.Address = None,
    keep_texts: options.KeepTexts = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Survey the heads of a model over a corpus: what each does, over what share of the texts.

    Results go to FOLDER/heads as Parquet, partitioned by layer.
    After Ctrl-C or a kill, the same command resumes: finished parts are kept.
    `clearhead survey report FOLDER` writes the results as a page.
    """
    from clearhead.survey import Settings, StoppedSurveyError, check_installed, checked_asks, open_corpus, survey
    from clearhead.survey.folder import SurveyFolder

    check_installed(ray)
    SurveyFolder.at(out).check_apart(data)  # before the texts are read
    settings = Settings(
        asks=checked_asks(ask),
        sample=sample,
        max_length=max_length,
        limit=limit,
        part_texts=part,
        batch_tokens=batch,
        threads=threads,
        keep_texts=keep_texts,
    )
    with Lines() as lines:
        reading_texts = partial(lines, "reading the texts")
        corpus = open_corpus(data, column=column, texts=texts, split=split, progress=reading_texts)
        surveying = partial(survey, None if model == "-" else model, corpus, out, settings, progress=lines)
        try:
            result = surveying(trust_remote_code=trust_remote_code, workers=workers, ray=ray, address=address)
        except StoppedSurveyError as stopped:
            printing.report(f"clearhead: {stopped}")
            raise
    show(result, out, as_json=as_json)


def show(result: "Survey", out: Path, *, as_json: bool) -> None:
    """Print the result: its listing as JSON, or a sentence and what was left out."""
    if as_json:
        from clearhead.survey.report.listing import listing

        printing.show_json(listing(out))
        return
    printing.show(summary(result.counts))
    for gap in result.missed:
        printing.report(f"clearhead: {gap['layer']} was left out of {gap['texts']:,} texts: {gap['reason']}")
    printing.report(f"wrote {out}; `clearhead survey report {out}` makes a page of it")


def summary(counts: dict[str, int]) -> str:
    """Return a sentence that says how much was surveyed."""
    words = [f"{printing.count(counts['texts'], 'text')}, {printing.count(counts['tokens'], 'token')}"]
    words += [f"{counts['cut']:,} cut to the most tokens"] if counts["cut"] else []
    words += [f"{counts['empty']:,} without text left out"] if counts["empty"] else []
    words += [f"{counts['ablated']:,} ablated"] if counts["ablated"] else []
    return "; ".join(words)


class Lines:
    """Progress lines, one for each step, one after the other."""

    def __init__(self) -> None:
        self._doing = ""
        self._stack = ExitStack()
        self._tell: Tell | None = None

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def __call__(self, doing: str, done: int, total: int) -> None:
        if doing != self._doing:
            self._stack.close()
            self._doing, self._tell = doing, self._stack.enter_context(progress(doing))
        if total and self._tell is not None:
            self._tell(done, total)
