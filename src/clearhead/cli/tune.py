"""`clearhead tune`: measure which kernel is faster on this machine, and keep the figures."""

from typing import TYPE_CHECKING, Annotated

import typer

from clearhead import printing
from clearhead.cli import reading
from clearhead.cli.output import Json
from clearhead.errors import KernelError

if TYPE_CHECKING:
    from clearhead.kernels.measured.figures import Costs


def tune(
    seconds: Annotated[float, typer.Option(min=1, max=100, help="About how long to measure.")] = 45,
    as_json: Json = False,
) -> None:
    """Measure our kernels and torch's on this machine, so that every call takes the faster one.

    The figures go to the user's cache folder. They hold for this CPU and these versions of clearhead and torch. With
    CLEARHEAD_TUNE=0 in the environment nothing reads them. Ctrl-C stops and keeps nothing.
    """
    from clearhead import kernels
    from clearhead.kernels import plan, tuning
    from clearhead.kernels.measured import figures

    if not kernels.targets():
        raise KernelError("the native library was not built, so there is nothing to compare. Install a C++ compiler.")
    with reading.progress("measuring") as tell:
        measured = tuning.measure(seconds, tell)
    path = figures.save(measured)
    plan.forget()
    if as_json:
        printing.show_json({**figures.as_data(measured), "path": str(path)})
    else:
        printing.show(table(measured))
        printing.report(f"wrote {path}")


def table(measured: "Costs") -> str:
    """Return a line for each task and dtype: what a call and a million multiply-adds cost on either kernel."""
    from clearhead.kernels.measured import costs

    lines = [f"{'task':10}{'dtype':10}{'native':>24}{'torch':>24}  torch is taken"]
    for (task, dtype), (ours, torchs) in measured.items():
        low, high, _ = costs.where_torch_is_faster(ours, torchs, "")
        each = (f"{cost.call:.1f} µs + {cost.work:.2f} µs" for cost in (ours, torchs))
        lines.append(f"{task:10}{str(dtype)[6:]:10}{''.join(f'{text:>24}' for text in each)}  {_extent(low, high)}")
    return "\n".join([*lines, "", "The first figure is for a call, the second for each million multiply-adds in it."])


def _extent(low: float, high: float) -> str:
    if low == float("inf"):
        return "never"
    if high != float("inf"):
        return f"below {high / 1e6:.3g} million multiply-adds"
    return "always" if low == 0 else f"from {low / 1e6:.3g} million multiply-adds on"
