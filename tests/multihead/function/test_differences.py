"""Each program in docs/differences.md prints the output that the page shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

import clearhead

PAGE = Path(__file__).parents[3] / "docs" / "differences.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE.read_text(), re.S)


def test_every_program_has_its_output():
    assert len(PROGRAMS) == PAGE.read_text().count("```python") >= 10


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself, for forward mode
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_the_program_prints_its_output(number):
    program, expected = PROGRAMS[number]
    if "accelerate" in program and not clearhead.kernels.targets():
        pytest.skip("the native library was not built on this machine")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, f"{PAGE.name}, program {number + 1}", "exec"), {})
    assert printed.getvalue() == expected
