"""Walk's arithmetic: on the server, in the browser's module, and in torch, the same numbers."""

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from clearhead.studio import compass, walk
from studio.conftest import Visitor
from studio.test_pages import TOPIC

STATIC = Path(walk.__file__).parent / "static"
NODE = shutil.which("node")


def cases() -> list[dict]:
    """Random matrices, some with large numbers, with and without the mask."""
    draw = random.Random(5)  # noqa: S311 — test data
    return [
        {
            **{n: [[draw.gauss(0, size) for _ in range(4)] for _ in range(3 + (n == "o"))] for n in "qkvo"},
            "causal": causal,
        }
        for size in (0.5, 3.0, 200.0)
        for causal in (False, True)
    ]


def plain(steps: walk.Steps) -> dict:
    return {"heads": [vars(head) for head in steps.heads], "joined": steps.joined, "result": steps.result}


def test_the_server_computes_what_torch_computes() -> None:
    import torch

    for case in cases():
        q, k, v, o = (torch.tensor(case[name], dtype=torch.float64) for name in "qkvo")
        split = [x.view(3, 2, 2).transpose(0, 1) for x in (q, k, v)]
        mixed = torch.nn.functional.scaled_dot_product_attention(*split, is_causal=case["causal"])
        expected = mixed.transpose(0, 1).reshape(3, 4) @ o
        torch.testing.assert_close(torch.tensor(walk.compute(**case).result, dtype=torch.float64), expected)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_browser_computes_what_the_server_computes() -> None:
    program = (
        f'import {{ compute }} from "{(STATIC / "walk.js").as_uri()}";'
        f'import {{ weights }} from "{(STATIC / "compass.js").as_uri()}";'
        "let text = ''; for await (const part of process.stdin) text += part;"
        "const { cases, turns } = JSON.parse(text);"
        "console.log(JSON.stringify({ walked: cases.map(compute), turned: turns.map((one) => weights(...one)) }));"
    )
    turns = [[0, 0], [62, 3], [359, 6], [180.5, 2.25]]
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", program],
        input=json.dumps({"cases": cases(), "turns": turns}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    for case, steps in zip(cases(), found["walked"], strict=True):
        assert flat(steps) == pytest.approx(flat(plain(walk.compute(**case))), rel=1e-12, abs=1e-12)
    for turn, row in zip(turns, found["turned"], strict=True):
        assert row == pytest.approx(compass.weights(*turn), rel=1e-12)


def flat(thing: object) -> list[float]:
    """Every number of a nested structure, in order; None as a number no step gives."""
    if isinstance(thing, dict):
        return [x for key in sorted(thing) for x in flat(thing[key])]
    if isinstance(thing, list):
        return [x for part in thing for x in flat(part)]
    return [-7.0e77 if thing is None else float(thing)]  # type: ignore[arg-type]


def test_without_javascript_the_address_carries_the_numbers(visitor: Visitor) -> None:
    page = visitor.get(f"{TOPIC}/walk?q-0-0=2.5&causal=1")
    assert 'name="q-0-0" value="2.5"' in page
    assert "−∞" in page


@pytest.mark.parametrize("typed", ["nan", "inf", "1e999", "x", "", "-1e30", "1e30"])
def test_nonsense_in_the_address_breaks_nothing(visitor: Visitor, typed: str) -> None:
    page = visitor.get(f"{TOPIC}/walk?q-0-0={typed}&k-0-0={typed}")
    assert "nan" not in page.lower().replace("nan&quot;", "")
