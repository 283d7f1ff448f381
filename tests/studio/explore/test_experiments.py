"""Try and Experiment: programs really run, confined, from a page without JavaScript and from the stream."""

import json
import re
from collections import OrderedDict
from dataclasses import replace

import pytest

from clearhead import sandbox
from clearhead.studio.explore.experiments import routes
from clearhead.studio.explore.experiments.line_chart import line_chart
from clearhead.studio.explore.experiments.programs import EXPERIMENTS
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")


def tried(visitor: Visitor, program: str, prediction: str = "") -> str:
    return visitor.post(f"{TOPIC}/try", item="scale-of-logits", program=program, prediction=prediction)


@pytest.mark.slow
def test_a_prediction_is_set_beside_what_was_printed(visitor: Visitor) -> None:
    assert "As you said" in tried(visitor, "print(6 * 7)", " 42 ")
    page = tried(visitor, "print(6 * 7)", "41")
    assert "Not what you said" in page
    assert page.index(">41<") < page.index(">42<")


@pytest.mark.slow
def test_an_exception_and_a_flood_are_reported(visitor: Visitor) -> None:
    page = tried(visitor, "x = 1\r\nprint(x)\r\nx / 0")
    assert "ZeroDivisionError" in page
    assert "line 3" in page
    assert "Stopped: it printed too much" in tried(visitor, "print('x' * 10**8)")


def test_a_program_reaches_neither_the_learners_files_nor_the_page(visitor: Visitor) -> None:
    page = tried(visitor, f"print(open({visitor.context.store.database.where!r}).read())")
    assert "Error" in page
    assert "<script>alert" not in tried(visitor, "print('<script>alert(1)</script>')")
    assert not visitor.context.progress.history


def test_a_program_too_long_is_refused(visitor: Visitor) -> None:
    visitor.post(f"{TOPIC}/try", 422, item="x", program="#" * 20_001)


EVERY_POINT = "hard"  # in `make test`; of the others two points, and in `make stress` every one


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "every"),
    [(name, name == EVERY_POINT) for name in EXPERIMENTS]
    + [pytest.param(name, True, marks=pytest.mark.stress) for name in EXPERIMENTS if name != EVERY_POINT],
)
def test_every_experiment_measures_every_point(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, name: str, every: bool
) -> None:
    experiment = EXPERIMENTS[name]
    if not every:
        experiment = replace(experiment, points=(experiment.points[0], experiment.points[-1]))
        monkeypatch.setitem(EXPERIMENTS, name, experiment)  # type: ignore[arg-type]
    monkeypatch.setattr(routes, "_kept", OrderedDict())
    lines = [json.loads(line) for line in visitor.client.get(f"/experiments/{name}").text.splitlines()]
    assert [line["done"] for line in lines] == list(range(1, len(experiment.points) + 1))
    assert all(line["html"].count('<th scope="row"') == line["done"] for line in lines)
    html = lines[-1]["html"]
    assert html.count("<svg class=") == len(experiment.charts)
    assert html.count('<td class="number">') == len(experiment.points) * len(experiment.columns)


def _number(written: str) -> float:
    """The value of a number as a page writes it: 1,024 or 3.6·10⁻⁶."""
    plain, _, power = written.replace(",", "").partition("·10")
    return float(plain) * 10 ** int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)


@pytest.mark.slow
def test_what_the_experiments_say_is_so(visitor: Visitor) -> None:
    def column(name: str, key: str) -> list[float]:
        page = visitor.get(f"{TOPIC}/experiment?name={name}&run=true")
        rows = re.findall(r"<tr><th scope=\"row\".*?</tr>", page)
        place = list(EXPERIMENTS[name].columns).index(key)
        cells = [re.findall(r'number">([^<]+)', row)[place] for row in rows]
        return [_number(cell.split(" (")[0]) for cell in cells]  # the median, without its range

    assert len(set(column("heads", "parameters"))) == 1
    plain, scaled = column("scale", "gradient_plain"), column("scale", "gradient_scaled")
    assert plain[-1] < plain[0] / 3
    assert scaled[-1] > scaled[0] / 3
    assert column("hard", "entropy") == sorted(column("hard", "entropy"))
    recurrent = column("length", "recurrent")
    assert recurrent[-1] < recurrent[0] / 1000


@pytest.mark.parametrize("query", ["width=9", "width=-1", "width=x", "length=99999", "width=²"])
def test_a_setting_that_makes_no_sense_falls_back(visitor: Visitor, query: str) -> None:
    page = visitor.get(f"{TOPIC}/experiment?name=heads&{query}")
    assert "<output" in page
    assert ">128</output>" in page


def test_an_unknown_experiment_is_a_404(visitor: Visitor) -> None:
    assert "there are heads" in visitor.get("/experiments/none", 404)


def test_a_curve_of_nothing_but_zeros_is_drawn() -> None:
    assert "nan" not in line_chart([1, 2], {"y": [0.0, 0.0]}, "flat")
