"""`clearhead tune`: measure which kernel is faster on this machine, and keep the figures."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from clearhead import printing
from clearhead.cli.output import Json
from clearhead.cli.progress import progress
from clearhead.errors import KernelError, OptionError

if TYPE_CHECKING:
    from clearhead.kernels.measured.tasks import Costs


FORMAT = "clearhead.tuning/2"


def tune(
    seconds: Annotated[float, typer.Option(min=1, max=100, help="How long to measure.")] = 45,
    as_json: Json = False,
) -> None:
    """Measure our kernels and torch's on this machine, so that every call takes the faster one.

    The figures go to the user's cache folder. They hold for this CPU and these versions of clearhead and torch.
    With CLEARHEAD_TUNE=0 in the environment nothing reads them.
    Ctrl-C stops and keeps nothing.
    """
    if math.isnan(seconds):  # Typer 0.19 takes it for a number of the range
        raise OptionError("--seconds is nan. Give a number from 1 to 100.")
    from clearhead import kernels
    from clearhead.kernels import plan, tuning
    from clearhead.kernels.measured import figures
    from clearhead.kernels.native.library import missing

    if not kernels.targets():
        raise KernelError(f"there is nothing to compare with torch's kernels: {missing}.")
    figures.refuse_unwritable()
    with progress("measuring") as tell:
        measured = tuning.measure(seconds, tell)
    path = figures.save(measured)
    plan.forget()
    if left_out := len(tuning.todo()) - len(measured):
        printing.report(f"{left_out} tasks were not measured: {seconds:.0f} s were over. Give more with --seconds")
    if as_json:
        printing.show_json({**figures.as_data(measured), "format": FORMAT, "path": str(path)})
    else:
        printing.show(table(measured))
        printing.report(f"wrote {path}")


def table(measured: "Costs") -> str:
    """Return a row for each task and dtype: the cost per call, head and million multiply-adds on either kernel."""
    lines = [f"{'task':24}{'dtype':10}{'native, µs':>24}{'torch, µs':>24}"]
    for (task, dtype), pair in measured.items():
        each = (f"{cost.call:.1f} + {cost.head:.2f} + {cost.work:.1f}" for cost in pair)
        lines.append(f"{task:24}{str(dtype)[6:]:10}{''.join(f'{text:>24}' for text in each)}")
    about = "The three figures are for a call, for each head of it, and for each million multiply-adds, of one thread."
    return "\n".join([*lines, "", about])
