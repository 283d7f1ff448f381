"""Walk's arithmetic: on the server, in the browser's module, and in torch, the same numbers."""

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clearhead.studio.explore import walk
from clearhead.studio.learn import welcome_figure
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC

STATIC = Path(walk.__file__).parents[1] / "static"
NODE = shutil.which("node")


def cases() -> list[dict]:
    """Random matrices, some with large numbers, with and without the mask."""
    draw = random.Random(5)  # noqa: S311 — test data
    return [
        {
            **{n: [[draw.gauss(0, size) for _ in range(4)] for _ in range(3 + (n == "o"))] for n in "qkvo"},
            "causal": causal,
            "heads": heads,
        }
        for size in (0.5, 3.0, 200.0)
        for causal in (False, True)
        for heads in walk.HEADS
    ]


def plain(steps: walk.Steps) -> dict:
    return {"heads": [vars(head) for head in steps.heads], "joined": steps.joined, "result": steps.result}


def test_the_server_computes_what_torch_computes() -> None:
    import torch

    for case in cases():
        q, k, v, o = (torch.tensor(case[name], dtype=torch.float64) for name in "qkvo")
        split = [x.view(3, case["heads"], -1).transpose(0, 1) for x in (q, k, v)]
        mixed = torch.nn.functional.scaled_dot_product_attention(*split, is_causal=case["causal"])
        expected = mixed.transpose(0, 1).reshape(3, 4) @ o
        torch.testing.assert_close(torch.tensor(walk.compute(**case).result, dtype=torch.float64), expected)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_browser_computes_what_the_server_computes() -> None:
    program = (
        f'import {{ compute }} from "{(STATIC / "walk.js").as_uri()}";'
        f'import {{ weights }} from "{(STATIC / "welcome-figure.js").as_uri()}";'
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
        assert row == pytest.approx(welcome_figure.weights(*turn), rel=1e-12)


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
    assert not re.search(r"\bnan\b(?!&quot;)", page.lower())


@pytest.mark.parametrize(("asked", "shown"), [("1", 1), ("2", 2), ("4", 4), ("3", 2), ("x", 2)])
def test_as_many_heads_as_asked_for(visitor: Visitor, asked: str, shown: int) -> None:
    page = visitor.get(f"{TOPIC}/walk?heads={asked}")
    assert page.count('data-matrix="weights-') == shown
    assert f"Q·K / √{4 // shown}" in page


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_what_lights_up_is_what_a_number_was_made_of() -> None:
    """Change every cell that does not light up, and the number stays; change those that do, and it moves."""
    program = (
        f'import {{ compute, sources }} from "{(STATIC / "walk.js").as_uri()}";'
        "const random = (r, c) => Array.from({ length: r }, () => Array.from({ length: c }, () => Math.random()));"
        "const given = { q: random(3, 4), k: random(3, 4), v: random(3, 4), o: random(4, 4), causal: false, heads: 2 };"
        "const before = compute(given), i = 1, j = 2, at = { 'logits-1': (s) => s.heads[1].logits[i][j],"
        " result: (s) => s.result[i][j], 'weights-1': (s) => s.heads[1].weights[i][j] };"
        "const lit = (name, of, r, c) => sources(of, i, j, 2, 4)"
        ".some(([n, x, y]) => n === name && (x ?? r) === r && (y ?? c) === c);"
        "const found = [];"
        "for (const [of, inputs] of [['logits-1', 'qk'], ['result', 'o']]) for (const name of inputs)"
        " given[name].forEach((row, r) => row.forEach((x, c) => { row[c] = x + 1;"
        " found.push([lit(name, of, r, c), at[of](compute(given)) !== at[of](before)]); row[c] = x; }));"
        "console.log(JSON.stringify(found));"
    )
    done = subprocess.run(
        [str(NODE), "--input-type=module", "-e", program], capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert len(found) == 12 + 12 + 16
    assert all(lit == moved for lit, moved in found)
    assert sum(lit for lit, _moved in found) == 2 + 2 + 4
