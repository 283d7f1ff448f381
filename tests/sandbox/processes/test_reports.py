"""A confined process may report anything: it is refused within bounds, and the host says what is wrong with it."""

import contextlib
import importlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "rapidfuzz", reason="the answers of a course are kept from programs: pip install 'clearhead[course]'"
)

from clearhead import course, sandbox
from clearhead.sandbox import Limits, Raised, limits
from clearhead.sandbox.processes import reports

RAISED = {"type": "ValueError", "message": "no", "file": "a.md", "line": 3, "chunk": 0, "kinds": ["ValueError"]}
FINE = {"raised": None, "values": {}}
needs_sandbox = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")


def test_what_an_honest_child_reports_is_read() -> None:
    assert reports.parse(b"") == reports.Report()
    report = reports.parse(json.dumps({"raised": RAISED, "values": {"x:.2f": "0.67"}}).encode(), ["x:.2f", "y"])
    assert report.raised == Raised("ValueError", "no", "a.md", 3, 0, ("ValueError",))
    assert report.values == {"x:.2f": "0.67"}
    tests = [["adds", True, "", None], ["subtracts", False, "it is 3", 7]]
    report = reports.parse(json.dumps({"tests": tests, "raised": None}).encode())
    assert report.tests == (limits.Tested("adds", True, "", None), limits.Tested("subtracts", False, "it is 3", 7))
    report = reports.parse(json.dumps({"each": [FINE, {"raised": RAISED, "values": {"x": "1"}}]}).encode(), count=2)
    assert [one["values"] for one in report.each] == [{}, {"x": "1"}]
    assert reports.parse(b'{"each": []}', count=5).each == ()


def test_half_a_surrogate_pair_is_written_as_its_escape() -> None:
    report = reports.parse(b'{"values": {"x": "a\\ud800b"}, "raised": null}', ["x"])
    assert report.values == {"x": "a\\ud800b"}
    assert report.values["x"].encode()


def changed(**more: object) -> bytes:
    return json.dumps({"raised": {**RAISED, **more}, "values": {}}).encode()


MALFORMED: dict[str, bytes] = {
    "a type alone": b'{"raised": {"type": "x"}}',
    "200,000 brackets": b"[" * 200_000,
    "200,000 closed brackets": b"[" * 200_000 + b"]" * 200_000,
    "200,000 objects": b'{"raised":' * 200_000,
    "brackets within": b'{"raised": null, "values": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two million brackets": b"[" + b"[]," * 2_000_000 + b"[]]",
    "half of it": json.dumps({"raised": RAISED}).encode()[:-9],
    "two of them": json.dumps(FINE).encode() * 2,
    "no JSON": b"not JSON",
    "no text": b"\xff\xfe\x00",
    "zeros": bytes(5000),
    "text": b'"raised"',
    "a number": b"7",
    "a list": b"[]",
    "nothing": b"null",
    "a huge number": b"1" * 50_000,
    "a huge number inside": b'{"raised": ' + b"9" * 50_000 + b"}",
    "NaN": b'{"raised": NaN}',
    "minus Infinity": b'{"values": {"x": -Infinity}}',
    "a large float": b'{"raised": 1e999}',
    "raised is true": b'{"raised": true}',
    "raised is a list": b'{"raised": []}',
    "raised is empty": b'{"raised": {}}',
    "raised has more": changed(more=1),
    "a type that is a number": changed(type=7),
    "a message that is an object": changed(message={"a": 1}),
    "a message that is nothing": changed(message=None),
    "a file that is a list": changed(file=["a"]),
    "a line that is text": changed(line="3"),
    "a line that is a float": changed(line=3.5),
    "a line that is true": changed(line=True),
    "a line that is negative": changed(line=-1),
    "a line that is huge": changed(line=10**40),
    "a chunk that is nothing": changed(chunk=None),
    "kinds that are text": changed(kinds="ValueError"),
    "kinds of numbers": changed(kinds=[1, 2]),
    "too many kinds": changed(kinds=["a"] * 5000),
    "values that are a list": b'{"values": [["x", "1"]]}',
    "a value that is a number": b'{"values": {"x": 1}}',
    "a value that was not asked for": b'{"values": {"y": "1"}}',
    "tests that are an object": b'{"tests": {"a": true}}',
    "a test that is text": b'{"tests": ["abcd"]}',
    "a test that passed by number": b'{"tests": [["a", 1, "", null]]}',
    "a test without a title": b'{"tests": [[null, true, "", null]]}',
    "a short test": b'{"tests": [["a", true]]}',
    "too many tests": json.dumps({"tests": [["a", True, "", None]] * 20_000}).encode(),
    "a verdict beside": b'{"raised": null, "passed": true}',
    "several of one": b'{"each": []}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_and_said(name: str) -> None:
    with pytest.raises(reports.ReportError) as refused:
        reports.parse(MALFORMED[name], ["x"])
    assert 5 < len(str(refused.value)) < 300
    assert str(refused.value).isascii() or "`" in str(refused.value)


@pytest.mark.parametrize(
    "each",
    [[7], [FINE, FINE, FINE], [{**FINE, "each": []}], [{"raised": {}}], {"0": FINE}, None, [[FINE]], [{"values": 7}]],
)
def test_a_malformed_batch_is_refused(each: object) -> None:
    with pytest.raises(reports.ReportError):
        reports.parse(json.dumps({"each": each}).encode(), count=2)


def says(report: bytes) -> str:
    """A program that writes this report itself and ends."""
    return f"import os\nos.write(4, {report!r})\nos._exit(0)"


SMALL = [name for name, data in MALFORMED.items() if len(data) < 60_000]


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("name", [one.name for one in sandbox.available()])
def test_a_program_that_writes_its_own_report_is_stopped_for_it(name: str) -> None:
    for forged in SMALL[:3] if name == "bubblewrap" else SMALL:
        done = sandbox.run(says(MALFORMED[forged]), want=[("x", "")], name=name)
        assert (done.stopped, done.ok, done.raised, done.values) == ("report", False, None, {}), forged
        assert "Its report is malformed" in done.stderr


@pytest.mark.slow
@needs_sandbox
def test_a_report_of_gigabytes_is_stopped_at_the_limit_of_output() -> None:
    flood = "import os\nos.write(4, b'{\"raised\": [')\nwhile True: os.write(4, b'[],' * 20000)"
    done = sandbox.run(flood, limits=Limits(seconds=10.0, memory=128 << 20))
    assert (done.stopped, done.ok) == ("output", False)


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    [
        "class E(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise E",
        "class E(Exception):\n    def __str__(self): return '\\ud800'\nraise E",
        "class M(type):\n    __name__ = 7\nclass E(Exception, metaclass=M): pass\nraise E",
        "raise type('E' * 10**5, (Exception,), {})('x' * 10**6)",
        "raise SyntaxError('m', ('program.py', 'seven', 1, 'x'))",
        "raise SyntaxError('m', (['program.py'], 1, 1, 'x'))",
        "raise BaseExceptionGroup('g', [ValueError('\\ud800')])",
        "def f(n): raise ValueError(n) if n == 0 else RuntimeError from f(n - 1)\nf(900)",
    ],
)
def test_an_odd_exception_is_reported_all_the_same(program: str) -> None:
    done = sandbox.run(program)
    assert (done.stopped, done.exit_code) == (None, 1), done
    assert done.raised is not None
    assert (done.raised.type + done.raised.message).encode()


@needs_sandbox
@pytest.mark.parametrize("code", [81, 82, 1])
def test_a_program_cannot_seem_not_to_have_been_run(code: int) -> None:
    assert sandbox.run(f"import os; os._exit({code})").stopped is None


GOOD = Path(__file__).parents[2] / "packs" / "good"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pack of two items: a good one, and one whose program is still to be written."""
    (tmp_path / "items").mkdir()
    (tmp_path / "pack.toml").write_text((GOOD / "pack.toml").read_text())
    for name in ("predict-error", "predict-range"):
        (tmp_path / "items" / f"{name}.md").write_text((GOOD / "items" / f"{name}.md").read_text())
    return tmp_path


@needs_sandbox
@pytest.mark.parametrize(
    "name", ["a type alone", "200,000 brackets", "NaN", "half of it", "a line that is text", "a value that is a number"]
)
def test_one_malformed_report_never_ends_the_proof_of_the_others(folder: Path, name: str) -> None:
    data = MALFORMED[name]
    made = f"{data[:20]!r} * {len(data) // 20}" if len(set(data)) == 1 else repr(data)
    item = folder / "items" / "predict-error.md"
    item.write_text(item.read_text().replace("print([10, 20][2])", f"import os; os.write(4, {made}); os._exit(0)"))
    seen: list[str] = []
    outcomes = course.prove_pack(course.load(folder), jobs=1, progress=lambda one, *_: seen.append(one.item_id))
    assert {one.item_id: one.ok for one in outcomes} == {"predict-error": False, "predict-range": True}
    assert sorted(seen) == ["predict-error", "predict-range"]
    bad = next(one for one in outcomes if not one.ok)
    assert "what its process reports is damaged: Its report is malformed" in bad.error
    assert bad.line is not None


@needs_sandbox
@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError("x"), MemoryError(), KeyError("x"), AssertionError()]
)
def test_no_error_of_one_item_ends_the_proof_of_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prove = importlib.import_module("clearhead.course.proofs.prove")
    proofs = dict(prove.PROOFS)
    calls: list[object] = []

    def fail(bench: Any) -> object:
        calls.append(bench)
        if bench.item.id == "predict-error":
            raise error
        return proofs["predict"](bench)

    monkeypatch.setattr(prove, "PROOFS", {**proofs, "predict": fail})
    outcomes = {one.item_id: one for one in course.prove_pack(course.load(folder), jobs=1)}
    assert outcomes["predict-range"].ok
    assert f"this item cannot be proved: {type(error).__name__}" in outcomes["predict-error"].error


@needs_sandbox
@pytest.mark.parametrize(
    "kept", [b"[]", b"[" * 200_000, b'{"key": 1, "proved": []}', b"\xff", b'{"proved": {"a": NaN}}']
)
def test_a_damaged_cache_is_none(folder: Path, tmp_path_factory: pytest.TempPathFactory, kept: bytes) -> None:
    cache = tmp_path_factory.mktemp("cache")
    pack = course.load(folder)
    place = cache / pack.id / "predict-range.json"
    place.parent.mkdir()
    place.write_bytes(kept)
    assert [one.cached for one in course.prove_pack(pack, cache=cache, only="predict-range") if one.ok] == [False]
    assert [one.cached for one in course.prove_pack(pack, cache=cache, only="predict-range") if one.ok] == [True]


@needs_sandbox
def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert [one.ok for one in course.prove_pack(course.load(folder), cache=tmp_path / "file")] == [True, True]


@needs_sandbox
@pytest.mark.parametrize("kept", [None, b"[]", b"7", b"[1]", b"[" * 200_000, b"\xff"])
def test_a_damaged_output_of_a_page_is_none(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, kept: bytes
) -> None:
    from clearhead.course.pack.item import Page
    from clearhead.studio.library.page_outputs import with_outputs

    cache, pack = tmp_path_factory.mktemp("cache"), course.load(folder)
    page = Page("read", "```python run\nprint(6 * 7)\n```\n", "a.md")
    shown = with_outputs(page, pack, cache)
    assert "42" in shown
    place = next((cache / "pages").iterdir())
    if kept is None:
        place.unlink()
    else:
        place.write_bytes(kept)
    assert with_outputs(page, pack, cache) == shown


JUNK = (
    "null", "true", "-1", "-0", "0.0", "1e400", "9" * 4299, "9" * 5000, str(1 << 40), '""', '"\\u0000"', '"\\ud800"',
    '"' + "x" * 300_000 + '"', "[]", "{}", "[[]]", "[null]", "[1, 2, 3, 4]", '["", true, "", -1]', '["", 1, "", 1]',
    '["\\ud83d", true, "\\udfff", null]', "[" * 900 + "]" * 900, '{"each": []}', '[{"each": [{}]}]', "NaN", "1_000",
    "0x10", "'a'", "tru", '"\x01"',
)  # fmt: skip


def reports_of(junk: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """This value in the place of every field: of an exception, of a report, and of one among several; and twice."""
    for field in RAISED:
        raised = json.dumps({**RAISED, field: "@"}).replace('"@"', junk)
        yield f'{{"raised": {raised}, "values": {{}}}}'.encode(), {}
        yield f'{{"raised": {json.dumps(RAISED)}, "raised": {raised}}}'.encode(), {}
    for field in ("raised", "values", "tests", "each"):
        yield f'{{"{field}": {junk}}}'.encode(), {"wanted": ["x"]}
        yield f'{{"each": [{{"{field}": {junk}}}, {{"{field}": {junk}}}]}}'.encode(), {"count": 3}
    yield f'{{"values": {{"x": {junk}}}}}'.encode(), {"wanted": ["x"]}
    yield f'{{"tests": [["a", true, "b", {junk}], {junk}]}}'.encode(), {}


def broken(count: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """An honest report cut at every byte, in other encodings, and with a few bytes replaced."""
    whole = json.dumps({"raised": RAISED, "values": {"x": "1"}, "tests": [["a", True, "b", 3]]})
    yield from ((whole.encode()[:end], {"wanted": ["x"]}) for end in range(len(whole)))
    yield from ((whole.encode(name), {"wanted": ["x"]}) for name in ("utf-16", "utf-32", "utf-8-sig", "cp037"))
    chance = random.Random(1)  # noqa: S311 — made-up damage
    for _ in range(count):
        data = bytearray(whole.encode())
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice(b'\x00"{}[]:,\\\xff\x80eE9-.ntf')
        yield bytes(data), {"wanted": ["x"]}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.stress)])
def test_whatever_stands_in_whatever_field_is_read_or_refused(count: int) -> None:
    cases = [case for junk in JUNK for case in reports_of(junk)] + list(broken(count))
    for data, given in cases:
        with contextlib.suppress(reports.ReportError):
            report = reports.parse(data, **given)
            raised = report.raised and asdict(report.raised)
            json.dumps([raised, dict(report.values), [asdict(test) for test in report.tests]], allow_nan=False).encode()
            assert all(isinstance(value, str) for value in report.values.values())
