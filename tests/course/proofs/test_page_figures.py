"""Figures of pages: read with their slider, run once a value, and refused where they are not safe to show."""

from pathlib import Path

import pytest

from clearhead.course.pack.item import Pack, Page
from clearhead.course.pack.page_programs import page_programs
from clearhead.course.proofs.pages import END, page_chunks, prove_page, prove_pages
from clearhead.errors import PackError, ProofError
from clearhead.sandbox import backend

needs_sandbox = pytest.mark.skipif(backend() is None, reason="no sandbox on this machine")
DRAWS = "svg = f'<svg xmlns=\"http://www.w3.org/2000/svg\"><title>{n}</title></svg>'\n"
PACK = Pack("p", "P", "", "1.0", Path(), (), {}, {})


def page(*fences: tuple[str, str]) -> Page:
    return Page("read", "\n".join(f"```{info}\n{source}```" for info, source in fences), "topics/t/read.md")


def test_a_slider_is_read_from_the_fence() -> None:
    shown = page(("python run", "n = 1\n"), ('python figure over=n at=1,2.5,4 start=2 label="How many"', DRAWS))
    run, figure = page_programs(shown)
    assert (run.draws, run.outputs, run.line) == (False, 1, 2)
    assert (figure.over, list(figure.values), figure.start, figure.label) == ("n", ["1", "2.5", "4"], 2, "How many")
    assert (figure.draws, figure.outputs, figure.line) == (True, 3, 5)


def test_a_slider_may_say_its_values_in_words() -> None:
    (figure,) = page_programs(page(('python figure over=n at=0,1 names="read at once, while writing"', DRAWS)))
    assert list(figure.names) == ["read at once", "while writing"]
    assert list(figure.values) == ["0", "1"]


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ("over=n at=1,2 names=one", "one name for each of the 2 values"),
        ('over=n at=1,2 names="one,"', "one name for each of the 2 values"),
        ("names=one,two", "give it over=NAME and at=VALUE"),
        ("over=n", "both over=NAME and at=VALUE"),
        ("at=1,2", "both over=NAME and at=VALUE"),
        ("over=1n at=1,2", "not a name"),
        ("over=n at=1", "needs 2 to 12 numbers"),
        ("over=n at=1,__import__('os')", "needs 2 to 12 numbers"),
        ("over=n at=" + ",".join("1" * 13), "needs 2 to 12 numbers"),
        ("over=n at=1,2 start=2", "not the place of a value, 0 to 1"),
        ("over=n at=1,2 colour=red", "a figure has no 'colour'"),
        ('over=n at=1,2 label="x', "cannot read the info string"),
    ],
)
def test_a_slider_that_is_not_written_right_is_refused_at_its_line(info: str, said: str) -> None:
    with pytest.raises(PackError, match=said) as caught:
        page_programs(page(("python run", "n = 1\n"), (f"python figure {info}", DRAWS)))
    assert (caught.value.file, caught.value.line) == ("topics/t/read.md", 4)


def test_a_figure_runs_once_for_each_value_and_forgets_the_last_picture() -> None:
    chunks = page_chunks(page_programs(page(("python figure over=n at=1,2", DRAWS))), "a.md")
    assert [chunk.source.splitlines()[0] for chunk in chunks[::4]] == ['globals().pop("svg", None)'] * 2
    assert [chunk.source.splitlines()[1] for chunk in chunks[::4]] == ["n = 1", "n = 2"]
    assert [chunk.source for chunk in chunks[3::4]] == [f"print(svg, end={END!r})"] * 2


@needs_sandbox
def test_programs_and_figures_share_a_namespace_in_order() -> None:
    shown = page(("python run", "n = 7\nk = 2\n"), ("python figure over=n at=1,2", DRAWS.replace("{n}", "{n * k}")))
    assert prove_page(shown, PACK) == 2
    assert prove_pages([shown, page(("python run", "print(1)\n"))], PACK) == [2, 1]


@needs_sandbox
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = n\n", "draws nothing"),
        ("svg = '<svg><script>1</script></svg>'\n", "holds a <script>"),
        ("svg = n\n", "is not an SVG"),
        (DRAWS.replace("{n}", "{id(object())}{n}"), "two runs print different things"),
        ("svg = 1 / (n - 2)\n", "ZeroDivisionError"),
    ],
)
def test_a_figure_that_must_not_be_in_a_page_is_refused_at_its_line(source: str, said: str) -> None:
    with pytest.raises(ProofError, match=said) as caught:
        prove_page(page(("python figure over=n at=1,2", source)), PACK)
    assert caught.value.line == 2
