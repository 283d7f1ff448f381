"""The AVX-512 kernels, run in an emulator for machines without that instruction set."""

from pathlib import Path

import pytest

import scripts

CASES = 20
emulator = scripts.load("tools/emulate_avx512.py")


@pytest.mark.stress
@pytest.mark.skipif(emulator.missing() is not None, reason=f"no emulator: {emulator.missing()}")
def test_avx512_passes_its_check_on_an_emulated_processor(tmp_path: Path) -> None:
    message = emulator.run(tmp_path, CASES)
    assert f"target avx512: {CASES} cases" in message, message
    assert "check ended with 0" in message, message


def test_the_initial_file_system_has_the_format_that_linux_reads() -> None:
    """A header has 13 fields of 8 hexadecimal digits; names and data start at multiples of 4."""
    out = emulator.archive([("init", 0o100755, b"hello", (0, 0)), ("dev/console", 0o20600, b"", (5, 1))])
    names, at = [], 0
    while at < len(out):
        assert out[at : at + 6] == b"070701"
        fields = [int(out[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        names.append(out[at + 110 : at + 110 + fields[11] - 1].decode())
        data = (at + 110 + fields[11] + 3) // 4 * 4
        if names[-1] == "init":
            assert out[data : data + fields[6]] == b"hello"
        if names[-1] == "dev/console":
            assert fields[9:11] == [5, 1]
        at = (data + fields[6] + 3) // 4 * 4
    assert names == ["init", "dev/console", "TRAILER!!!"]
