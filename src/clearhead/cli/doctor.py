"""`clearhead doctor`: report what runs on this machine, what does not, and why."""

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from clearhead import __version__, printing
from clearhead.cli.output import Json
from clearhead.errors import ClearheadError

if TYPE_CHECKING:
    from rich.console import RenderableType

PACKAGES = ("torch", "transformers", "numpy", "matplotlib", "anywidget", "fastapi", "sqlalchemy")
FORMAT = "clearhead.doctor/1"
UNBROKEN = 10_000  # columns: in a pipe or a file, a finding is one line, for grep and for copying a path
MARKS = {True: ("yes", "green"), False: ("no", "red"), None: ("", "")}
# dtype, batch, queries, keys, further arguments of `attention`, whether gradients are needed
CALLS: dict[str, tuple[str, int, int, int, dict[str, Any], bool]] = {
    "prompt, float32": ("float32", 1, 512, 512, {"is_causal": True}, False),
    "prompt, bfloat16": ("bfloat16", 1, 512, 512, {"is_causal": True}, False),
    "next token, float32": ("float32", 1, 1, 512, {}, False),
    "next token, bfloat16": ("bfloat16", 1, 1, 512, {}, False),
    "training, float32": ("float32", 2, 128, 128, {"is_causal": True}, True),
    "soft cap, float32": ("float32", 1, 512, 512, {"softcap": 30.0}, False),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        works: whether it works; None for plain information.
        detail: the version, the place or the reason.
    """

    section: str
    name: str
    works: bool | None
    detail: str


def doctor(as_json: Json = False) -> None:
    """Report what runs on this machine, which kernel is chosen and why, and what is missing."""
    report = examine()
    if as_json:
        printing.show_json(as_data(report))
    else:
        from clearhead.console import console

        screen = console()
        if not screen.is_terminal:
            screen.width = UNBROKEN
        screen.print(as_table(report))


def examine() -> list[Finding]:
    """Return all findings. A check that fails is a finding, not an error."""
    return [*_machine(), *_packages(), *_kernels(), *_lens(), *_studio()]


def as_data(report: list[Finding]) -> dict[str, Any]:
    """Return the report as JSON-ready data: section -> name -> {works, found}, and `format` with its version."""
    data: dict[str, Any] = {"format": FORMAT}
    for finding in report:
        data.setdefault(finding.section, {})[finding.name] = {"works": finding.works, "found": finding.detail}
    return data


def as_table(report: list[Finding]) -> "RenderableType":
    """Return the report as a table, one section at a time."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for section in dict.fromkeys(finding.section for finding in report):
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(min_width=12, no_wrap=True)
        table.add_column(min_width=3)
        table.add_column(overflow="fold")
        for finding in report:
            if finding.section == section:
                word, style = MARKS[finding.works]
                table.add_row(finding.name, Text(word, style=style), finding.detail)
        parts += [Text(section, style="bold"), table, Text()]
    return Group(*parts[:-1])


def _machine() -> list[Finding]:
    return [
        Finding("This machine", "clearhead", None, __version__),
        Finding("This machine", "python", None, f"{platform.python_version()} at {sys.executable}"),
        Finding("This machine", "system", None, f"{platform.system()} {platform.release()} {platform.machine()}"),
        Finding("This machine", "cpu", None, _cpu()),
    ]


def _cpu() -> str:
    """Return the name of the CPU and how many of its cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    import torch

    from clearhead.kernels.native.library import cpu_name

    return f"{cpu_name()}, {printing.count(cores, 'core')}, {torch.backends.cpu.get_cpu_capability()}"


def _packages() -> list[Finding]:
    return [Finding("Packages", name, *_installed(name)) for name in PACKAGES]


def _installed(name: str) -> tuple[bool, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return True, version(name)
    except PackageNotFoundError:
        return False, "not installed"


def _kernels() -> list[Finding]:
    """Return each kernel, whether this machine was measured, and the plans of a few typical calls."""
    from clearhead import kernels
    from clearhead.kernels.measured import costs, figures
    from clearhead.kernels.native.library import build_failure, library

    findings = [Finding("Kernels", item.kernel, item.available, item.reason) for item in kernels.available()]
    if library is None and (failure := build_failure()):
        findings.append(Finding("Kernels", "native build", False, failure))
    works, source = _try(costs.source)
    findings.append(
        Finding("Kernels", "measured costs", None if works and not figures.load().damaged else False, source)
    )
    for name, call in CALLS.items():
        works, planned = _try(partial(_plan, *call))
        findings.append(Finding("Plans", name, None if works else False, planned))
    return findings


def _plan(dtype: str, batch: int, length: int, keys: int, options: dict[str, Any], learns: bool) -> str:
    """Return how a call of 8 heads of 64 would run here."""
    import torch

    from clearhead import kernels

    sizes = ((batch, 8, length, 64), (batch, 8, keys, 64), (batch, 8, keys, 64))
    query, key, value = (torch.empty(size, dtype=getattr(torch, dtype), requires_grad=learns) for size in sizes)
    planned = kernels.explain(query, key, value, **options)
    kernel = f"{planned.kernel}, target {planned.target}" if planned.target else planned.kernel
    return f"{planned.path}, kernel {kernel}: {planned.reason}"


def _lens() -> list[Finding]:
    return [Finding("Lens", "demo model", *_try(_demo_model))]


def _demo_model() -> str:
    from clearhead.capture.models.folders import DEMO_NAME, demo_folder

    return f"{DEMO_NAME} in {demo_folder()}"


def _studio() -> list[Finding]:
    from clearhead import sandbox
    from clearhead.studio.app.browser import graphical_browser

    able = sandbox.backend()
    browser = graphical_browser()
    none = "none with a window: open the printed address yourself"
    opens = none if browser is None else browser.name or "the system's"
    return [
        Finding("Studio", "sandbox", able is not None, sandbox.explain()),
        *(Finding("Studio", f"sandbox {name}", None, detail) for name, detail in sandbox.guarantees().items()),
        Finding("Studio", "browser", browser is not None, opens),
    ]


def _try(check: Callable[[], str]) -> tuple[bool, str]:
    try:
        return True, check()
    except ClearheadError as error:
        return False, str(error)
