"""A program is judged by tests in another process: right verdicts, and no way to forge one."""

import pytest

from clearhead import sandbox
from clearhead.sandbox import Chunk, Judged, Limits

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
SHORT = Limits(seconds=2.0, memory=128 << 20)
TESTS = """
def test_double():
    "doubles a number"
    assert double(21) == 42, f"double(21) is {double(21)!r}"


def test_refuses():
    "refuses a text"
    with raises(TypeError, "number"):
        learner.double("x")
"""
RIGHT = """
def double(x):
    if isinstance(x, str):
        raise TypeError("a number, please")
    return 2 * x
"""


def judge(program: str, tests: str = TESTS, preload: tuple[str, ...] = ()) -> Judged:
    return sandbox.judge(program, tests, limits=SHORT, preload=preload)


def test_a_right_program_passes() -> None:
    judged = judge(RIGHT)
    assert judged.passed
    assert [(test.title, test.passed) for test in judged.tests] == [
        ("doubles a number", True),
        ("refuses a text", True),
    ]


def test_a_test_without_a_title_has_its_name() -> None:
    tests = 'def test_doubles_a_number():\n    " "\n    assert double(21) == 42\ndef test_(): pass\n'
    assert [(test.title, test.passed) for test in judge(RIGHT, tests).tests] == [
        ("doubles a number", True),
        ("test_", True),
    ]


def test_a_wrong_program_hears_why() -> None:
    judged = judge("def double(x): return x + 1")
    assert [test.message for test in judged.tests] == [
        "double(21) is 22",
        "TypeError says 'can only concatenate str (not \"int\") to str'; expected 'number' in it",
    ]


def test_close_says_that_it_compares_tensors() -> None:
    """A list failed as an attribute error of the judge's own, which blamed the program."""
    tests = "def test_two(): close(double([1.0]), [2.0])"
    (two,) = sandbox.judge(RIGHT, tests, limits=Limits(), preload=("torch",)).tests
    assert two.message.startswith(
        "TypeError: close() compares tensors, and the test expects a list. Write torch.tensor"
    )


def test_raises_needs_an_exception_of_its_kind_and_words_in_any_case() -> None:
    assert judge("def double(x): return 42").tests[1].message == "nothing was raised; TypeError was expected"
    for says, passed in (("A NUMBER", True), ("", True), ("a text", False)):
        assert judge(RIGHT, f"with raises(TypeError, {says!r}):\n    double('x')").passed == passed, says


def test_tests_that_break_off_prove_nothing() -> None:
    judged = judge(RIGHT, TESTS + "\n1 / 0")
    assert [(test.passed, test.message) for test in judged.tests] == [(False, "ZeroDivisionError: division by zero")]
    nothing = judge(RIGHT).program
    assert not Judged((), nothing, nothing).passed


@pytest.mark.slow
def test_a_program_that_does_not_end_fails_once_and_says_so() -> None:
    tests = judge("def double(x):\n    while isinstance(x, str): pass\n    return 2 * x").tests
    failed = [test for test in tests if not test.passed]
    assert [test.title for test in failed] == ["The program comes to an end"]
    assert "seconds. Is there a loop that never ends?" in failed[0].message


@pytest.mark.parametrize("error", ["SystemExit(0)", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "Exception"])
def test_leaving_in_the_answer_fails_plain_assertions_too(error: str) -> None:
    assert not judge(f"def double(x): raise {error}", "assert double(21) == 42").passed


LOOPS = """
def test_all():
    assert all(map(lambda x: double(x) == 2 * x, [3, 5]))


def test_each():
    for twice, wanted in zip(map(learner.double, [3, 5]), [6, 10]):
        assert twice == wanted


def test_counted():
    assert sum(1 for _ in filter(lambda x: double(x) != 2 * x, [3, 5])) == 0


def test_until():
    for twice in iter(lambda: double(3), 0):
        assert twice == 6
"""


@pytest.mark.parametrize("kinds", ["StopIteration", "type('End', (StopIteration,), {})", "StopAsyncIteration"])
def test_an_exception_that_would_end_a_loop_fails_each_test(kinds: str) -> None:
    judged = judge(f"def double(x): raise {kinds}", LOOPS)
    assert [test.passed for test in judged.tests] == [False] * 4
    assert all("Stop" in test.message or "End" in test.message for test in judged.tests)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (line 1 of your program)"),
        ("def double(x:\n", "SyntaxError"),
        ("", "NameError: name 'double' is not defined"),
        ("double = 3", "not callable"),
        ("def double(x):\n    return 1 / 0", "ZeroDivisionError: division by zero (line 2 of your program)"),
        ("def double(x): return print", "builtin_function_or_method"),
        ("while True: pass", "stopped after 2 seconds"),
        ("x = bytearray(10 << 30)", "too much memory"),
        ("def double(x):\n    while True: pass", "stopped after 2 seconds"),
    ],
)
def test_what_fails_says_so(program: str, message: str) -> None:
    judged = judge(program)
    assert not judged.passed
    assert any(message in test.message for test in judged.tests if not test.passed), judged.tests


def test_values_cross_over_unchanged() -> None:
    tests = """
for value in (None, True, 7, -(2**70), 1.5, float("inf"), "é\\n", [1, (2, 3)], {"a": [1], 2: None}, b""):
    if value != b"":
        assert learner.same(value) == value and type(learner.same(value)) is type(value), value
assert math.isnan(learner.same(float("nan")))
with raises(TypeError):
    learner.same(object())
"""
    assert judge("def same(x): return x", tests).tests == judge("same = lambda x: x", tests).tests
    assert judge("def same(x): return x", tests).passed


def test_objects_stay_and_are_called() -> None:
    program = """
class Counter:
    def __init__(self, start): self.count = start
    def add(self, n):
        self.count += n
        return self
"""
    assert judge(program, "c = learner.Counter(2)\nassert c.add(3).add(4).count == 9").passed


SEVERAL = (RIGHT, "def double(x): return x + 1", "1 / 0", "", "def double(x): return print", "print('out')\n" + RIGHT)


def together(programs: tuple[str, ...], limits: Limits = SHORT, preload: tuple[str, ...] = ()) -> list[Judged] | None:
    return sandbox.judge_each([([Chunk(one)], [Chunk(TESTS)]) for one in programs], limits=limits, preload=preload)


def test_programs_judged_together_fare_as_they_do_alone() -> None:
    alone = [sandbox.judge([Chunk(one)], [Chunk(TESTS)], limits=SHORT).tests for one in SEVERAL]
    found = together(SEVERAL)
    assert found is not None
    assert [one.tests for one in found] == alone
    assert [one.passed for one in found] == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(0)",
        "def double(x):\n    import os\n    os._exit(0)",
        "while True: pass",
        "def double(x):\n    while True: pass",
        "x = bytearray(10 << 30)",
        "def double(x): return bytearray(10 << 30)",
        "import os; os.close(5)",
        "import os, struct; os.write(5, struct.pack('<I', 3) + b'{]}')",
        "import builtins; builtins.isinstance = lambda *a: True",
        "import math; del math.tau",
        "import random; random.Random.random = lambda self: 0.5; random.random = lambda: 0.5",
    ],
)
def test_a_program_that_would_disturb_the_others_ends_their_batch(program: str) -> None:
    assert together((RIGHT, program, RIGHT)) is None


@pytest.mark.slow
def test_a_program_that_replaces_something_of_torch_ends_its_batch() -> None:
    for source in (
        "import torch; torch.nn.Linear.forward = None",
        "import torch; torch.Tensor.softmax = torch.Tensor.exp",
        "import torch.nn.functional as F; F.softmax = F.relu",
    ):
        assert together((RIGHT, f"{source}\n{RIGHT}"), preload=("torch",)) is None, source
    kept = (
        f"import torch, torch.nn.utils.prune\ntorch.nn.Module.ours = 1\ntorch.set_default_dtype(torch.float64)\n{RIGHT}"
    )
    assert [one.passed for one in together((RIGHT, kept), preload=("torch",)) or ()] == [True, True]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("x[:, :2] * 2", ": shape (3, 2); expected (3, 5)"),
        ("(x * 2).reshape(5, 3)", ": shape (5, 3); expected (3, 5)"),
        ("(x * 2).double()", ": dtype torch.float64; expected torch.float32"),
        ("x * 2 + 0.01 * (torch.arange(15).reshape(3, 5) == 7)", "at [1, 2]: 2.01; expected 2 (within 1e-05)"),
        ("x * 2 * float('nan')", ": nan; expected 2"),
        ("[2.0]", ": a list; expected a tensor of shape (3, 5)"),
        ("None", "the result: None; expected"),
        ("x * 2", ""),
    ],
)
def test_a_tensor_is_judged_by_its_shape_first(returned: str, message: str) -> None:
    tests = "import torch\nx = torch.ones(3, 5)\nclose(learner.double(x), 2 * x)"
    judged = judge(f"import torch\ndef double(x): return {returned}", tests, preload=("torch",))
    assert judged.passed == (not message)
    assert message in judged.tests[0].message


FORGERIES = {
    "end early with success": "import os; os._exit(0)",
    "exit in the answer": "import os\ndef double(x): os._exit(0)",
    "raise SystemExit": "raise SystemExit(0)",
    "print a verdict": "print('passed')\nimport json\nprint(json.dumps({'tests': [['doubles', True, '', None]]}))",
    "write a report": (
        "import json, os\nos.write(4, json.dumps({'tests': [['doubles a number', True, '', None]],"
        " 'raised': None}).encode())\nos._exit(0)"
    ),
    "write every descriptor": (
        "import json, os\nforged = json.dumps({'tests': [['a', True, '', None]], 'raised': None}).encode()\n"
        "for fd in range(64):\n    try: os.write(fd, forged)\n    except OSError: pass\nos._exit(0)"
    ),
    "answer every question at once": (
        "import json, os, struct\nfor value in (None, 42, 42, 42):\n    data = json.dumps({'value': value}).encode()\n"
        "    os.write(5, struct.pack('<I', len(data)) + data)\n"
        "data = json.dumps({'raised': {'type': 'X', 'message': 'number', 'kinds': ['X']}}).encode()\n"
        "os.write(5, struct.pack('<I', len(data)) + data)"
    ),
    "a huge message": "import os, struct\nos.write(5, struct.pack('<I', 2**32 - 1) + b'x' * 999)\nwhile True: pass",
    "not JSON": "import os, struct\nos.write(5, struct.pack('<I', 3) + b'{]}')\nwhile True: pass",
    "deep JSON": (
        "import os, struct\ndata = b'[' * 100000 + b']' * 100000\n"
        "data = b'{\"value\": ' + data + b'}'\nos.write(5, struct.pack('<I', len(data)) + data)\nwhile True: pass"
    ),
    "an object equal to everything": (
        "class All:\n    def __eq__(self, other): return True\n    def __bool__(self): return True\n"
        "def double(x): return All()"
    ),
    "a number equal to everything": (
        "class All(int):\n    def __eq__(self, other): return True\ndef double(x): return All(0)"
    ),
    "a text that claims more": "class Text(str):\n    __eq__ = lambda *a: True\ndef double(x): return Text('42')",
    "swap the builtins": (
        "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {})\nbuiltins.len = lambda x: 42\n"
        "def double(x): return 0"
    ),
    "swap the judge's functions": (
        "from clearhead.sandbox.child import judging, wire, execution\nfor module in (judging, wire, execution):\n"
        "    for name in list(vars(module)):\n        if callable(getattr(module, name)) and name[0] != '_':\n"
        "            setattr(module, name, lambda *a, **k: {'tests': [['a', True, '', None]], 'raised': None})\n"
        "def double(x): return 0"
    ),
    "look for the tests in memory": (
        "import gc\nkept = [x for x in gc.get_objects() if isinstance(x, (dict, list, str))]\n"
        "found = [x for x in kept if 'doubles a' + ' number' in repr(x)[:20000]]\n"
        "def double(x): return 42 if found else 0"
    ),
    "trace every call": "import sys\nsys.settrace(print)\ndef double(x): return 0",
    "raise an exception that lies": (
        "class AssertionPassed(BaseException):\n    def __str__(self): raise SystemExit(0)\n"
        "def double(x): raise AssertionPassed()"
    ),
    "raise KeyboardInterrupt": "def double(x): raise KeyboardInterrupt",
    "kill the tests": (
        "import os, signal\nfor pid in range(os.getpid() - 50, os.getpid() + 50):\n"
        "    try: os.kill(pid, signal.SIGKILL) if pid != os.getpid() else None\n    except OSError: pass\n"
        "def double(x): return 0"
    ),
    "leave a thread behind": (
        "import os, threading, time\ndef later():\n    time.sleep(0.05)\n    os._exit(0)\n"
        "threading.Thread(target=later).start()\ndef double(x):\n    time.sleep(0.2)\n    return 0"
    ),
    "define tests of its own": "def test_double(): pass\ndef test_refuses(): pass\nlearner = close = raises = print",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_no_verdict_is_forged(name: str) -> None:
    judged = judge(FORGERIES[name])
    assert not judged.passed
    assert any(not test.passed and test.message for test in judged.tests)


def test_a_program_that_answers_right_by_hand_is_only_that() -> None:
    """Speaking the protocol by hand can pass, as any program that gives right values does; it gains nothing else."""
    judged = judge(RIGHT + "print('passed')")
    assert judged.passed
    assert judged.program.stdout == "passed\n"
