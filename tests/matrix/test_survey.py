"""All statistics in one sweep, and the share of each cell of a map that a mask allows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix

from .cases import CASES

NATIVE_OR_TORCH = [torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", NATIVE_OR_TORCH, ids=str)
@pytest.mark.parametrize(
    "name", ["causal, more rows", "window, causal, padding, softcap", "sinks, softcap, bias, mask"]
)
def test_a_survey_equals_each_statistic_by_itself(name: str, dtype: torch.dtype) -> None:
    A, reports = CASES[name].matrix(dtype), []
    actual = A.survey(k=3, cells=(5, 7), offset=2, progress=reports.append)
    for name_, answer in (
        ("entropy", A.entropy()),
        ("maximum", A.maximum()),
        ("effective_keys", A.effective_keys()),
        ("mean_distance", A.mean_distance(offset=2)),
        ("distance_spread", A.distance_spread(offset=2)),
        ("received", A.received()),
        ("pooled", A.pooled(5, 7)),
    ):
        torch.testing.assert_close(getattr(actual, name_), answer, msg=lambda m, n=name_: f"{n}: {m}")
    torch.testing.assert_close(actual.topk[0], A.topk(3)[0])
    assert torch.equal(actual.topk[1], A.topk(3)[1])
    assert reports[-1] == 1
    assert reports == sorted(reports)


def test_progress_is_also_reported_while_the_lse_is_computed(monkeypatch) -> None:
    monkeypatch.setattr("clearhead.kernels.second_pass.CHUNK", 1)
    q, reports = torch.randn(1, 2, 2053, 3), []
    A = AttentionMatrix(q, q[:, :1, :7], reach=(-1500, 3), scale=0.3)
    actual = A.survey(progress=reports.append)
    assert reports == pytest.approx([done / 4106 for done in (1024, 2048, 2053, 3077, 4101, 4106)])
    again = AttentionMatrix(q, q[:, :1, :7], reach=(-1500, 3), scale=0.3)
    torch.testing.assert_close(again.lse, A.lse)
    torch.testing.assert_close(again.received(), actual.received)


def test_a_survey_limits_k_to_the_keys_and_refuses_invalid_sizes() -> None:
    A = CASES["one key"].matrix()
    assert A.survey(k=8).topk[0].shape == (2, 6, 23, 1)
    with pytest.raises(OptionError, match="k of 1 or more"):
        A.survey(k=0)
    with pytest.raises(OptionError, match="at least one cell"):
        A.survey(cells=(0, 4))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("small", [False, True])
def test_allowed_is_the_mask_averaged_over_cells(name: str, small: bool, monkeypatch) -> None:
    if small:
        monkeypatch.setattr("clearhead.matrix.logits.BLOCK", 101)
    A, mask = CASES[name].matrix(), (CASES[name].dense()[1] > -torch.inf).float()
    torch.testing.assert_close(A.allowed(5, 3), F.adaptive_avg_pool2d(mask, (5, 3)))
    torch.testing.assert_close(A.allowed(*mask.shape[2:]), mask)
    area = (slice(mask.shape[2] // 3, None), slice(0, mask.shape[3] - mask.shape[3] // 4))
    torch.testing.assert_close(A.allowed(4, 7, region=area), F.adaptive_avg_pool2d(mask[:, :, *area], (4, 7)))


def test_a_bias_of_minus_infinity_is_not_a_mask_for_allowed_but_gives_no_weight() -> None:
    q, bias = torch.zeros(1, 1, 3, 2), torch.tensor([0.0, -torch.inf, 0.0])
    A = AttentionMatrix(q, q, bias=bias)
    assert A.allowed(1, 1).item() == 1
    assert A.survey(k=3).topk[1][0, 0, 0].tolist() == [0, 2, 1]


@pytest.mark.parametrize("name", ["causal, more rows", "sinks, softcap, bias, mask", "window, shared heads, sinks"])
def test_a_first_statistic_also_computes_the_lse(name: str) -> None:
    first, second = CASES[name].matrix(), CASES[name].matrix()
    second.lse  # noqa: B018 — computes the lse before the statistic
    for question in ("entropy", "maximum", "effective_keys"):
        torch.testing.assert_close(getattr(CASES[name].matrix(), question)(), getattr(second, question)())
    torch.testing.assert_close(first.topk(3)[0], second.topk(3)[0])
    torch.testing.assert_close(first.lse, second.lse)


@pytest.mark.stress
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is read from /proc")
def test_a_survey_of_one_head_of_131072_tokens_takes_under_a_gigabyte() -> None:
    command = [sys.executable, "-m", "bench.survey.long_text", "--length", "131072", "--cells", "512"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    actual = re.search(r"(\d+) MiB beyond queries and keys", done.stdout)
    assert actual is not None, done.stdout
    assert int(actual[1]) < 950
    assert "columns add up to 131,072" in done.stdout
