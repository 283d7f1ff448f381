"""The statistics of a batch are those of each of its texts alone: by the equations in float64, and by capture.scores."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from clearhead import AttentionMatrix, capture
from clearhead.survey.asks import STATISTICS
from clearhead.survey.measuring import batches, observing, weights
from clearhead.survey.measuring.batches import Tokens
from clearhead.survey.measuring.statistics import Positions, measure
from clearhead.survey.measuring.token_kinds import NUMBER, PUNCTUATION, WORD, KindTable
from survey.made import CLOSE, TEXTS, induction

NAMES = [statistic.name for statistic in STATISTICS if statistic.name != "ablation"]
LENGTHS = (2, 7, 11, 13, 1)
HEADS, WIDTH = 6, 5


@pytest.fixture(autouse=True, params=[weights.DENSE_UP_TO, 0], ids=["short", "long"])
def short_texts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of up to so many tokens have all products at once; longer ones those of nearby and repeated tokens."""
    monkeypatch.setattr(weights, "DENSE_UP_TO", request.param)


def rows() -> list[Tokens]:
    """Texts of a few tokens that repeat; token 1 is special, 2 is punctuation, 3 a number."""
    make = torch.Generator().manual_seed(3)
    ids = [torch.randint(1, 7, (length,), generator=make).tolist() for length in LENGTHS]
    return [Tokens(place, row, [token == 1 for token in row], False) for place, row in enumerate(ids)]


def kinds(ids: Tensor) -> Tensor:
    return torch.where(ids == 2, PUNCTUATION, torch.where(ids == 3, NUMBER, WORD))


Attention = Callable[[Tensor, Tensor, Tensor], AttentionMatrix]
SINKS = torch.linspace(-1, 2, HEADS)
SLOPES = torch.linspace(0.1, 0.9, HEADS)
ATTENTIONS: dict[str, Attention] = {
    "padding": lambda q, k, mask: AttentionMatrix(q, k, allow=mask[:, None, None]),
    "causal": lambda q, k, mask: AttentionMatrix(q, k, allow=mask[:, None, None], is_causal=True),
    "window": lambda q, k, mask: AttentionMatrix(q, k, allow=mask[:, None, None], reach=(-2, 3)),
    "grouped": lambda q, k, mask: AttentionMatrix(q, k[:, ::3].contiguous(), allow=mask[:, None, None]),
    "sinks": lambda q, k, mask: AttentionMatrix(q, k, allow=mask[:, None, None], sinks=SINKS),
    "alibi": lambda q, k, mask: AttentionMatrix(q, k, allow=mask[:, None, None], alibi=SLOPES, softcap=2.0),
    "by head": lambda q, k, mask: AttentionMatrix(
        q, k, allow=mask[:, None, None] & (torch.arange(HEADS) > 1)[:, None, None].logical_or(torch.eye(13).bool())
    ),
    "steep": lambda q, k, mask: AttentionMatrix(q, k, allow=mask[:, None, None], scale=40.0),
}


def expected(weights: Tensor, visible: Tensor, row: Tokens) -> dict[str, Tensor]:
    """The statistics of one text from its weights (H, L, L), float64, a query at a time."""
    ids, size = row.ids, len(row.ids)
    sums = {name: torch.zeros(len(weights), dtype=torch.double) for name in NAMES}
    counts = dict.fromkeys(NAMES, 0)
    most, offsets = torch.zeros(len(weights), dtype=torch.double), []
    kind = kinds(torch.tensor(ids)).tolist()
    groups: dict[str, Callable[[int, int], bool]] = {
        "first_token": lambda i, j: j == 0,
        "sink": lambda i, j: j == 0 or row.special[j],
        "previous_token": lambda i, j: j == i - 1,
        "duplicate_token": lambda i, j: j < i and ids[j] == ids[i],
        "induction": lambda i, j: 0 < j <= i and ids[j - 1] == ids[i],
        "separator": lambda i, j: j > 0 and row.special[j],
        "on_special": lambda i, j: row.special[j],
        "on_punctuation": lambda i, j: not row.special[j] and kind[j] == PUNCTUATION,
        "on_number": lambda i, j: not row.special[j] and kind[j] == NUMBER,
        "on_word": lambda i, j: not row.special[j] and kind[j] == WORD,
        "on_self": lambda i, j: j == i,
        "on_next": lambda i, j: j == i + 1,
        "on_near": lambda i, j: 2 <= abs(i - j) <= 4,
        "on_far": lambda i, j: abs(i - j) >= 5,
    }
    counted = {
        "first_token": lambda i: i > 0, "sink": lambda i: i > 0, "previous_token": lambda i: i > 0,
        "duplicate_token": lambda i: ids[i] in ids[:i], "induction": lambda i: ids[i] in ids[:i],
        "separator": lambda i: any(row.special[1:]),
    }  # fmt: skip
    for i in range(size):
        given = weights[:, i]
        entropy = -torch.special.xlogy(given, given).sum(-1)
        sums["entropy"] += entropy
        sums["maximum"] += given.amax(-1)
        most += visible[:, i].clamp_min(1).double().log()
        offsets.append(given.argmax(-1) - i)
        for name in ("entropy", "maximum"):
            counts[name] += 1
        for name, group in groups.items():
            if counted.get(name, lambda _: True)(i):
                counts[name] += 1
                sums[name] += given[:, [j for j in range(size) if group(i, j)]].sum(-1)
    made = {name: sums[name] / count if count else torch.full_like(most, math.nan) for name, count in counts.items()}
    made["breadth"] = torch.where(most > 0, sums["entropy"] / most, math.nan)
    table = torch.stack(offsets)
    commonest = [torch.unique(column, return_counts=True)[1].max() for column in table.T]
    made["positional"] = torch.tensor(commonest).double() / size
    return made


@pytest.mark.parametrize("native", [True, False], ids=["one pass", "question by question"])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_batch_has_the_statistics_of_each_text(name: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(weights.second_pass, "refuses", lambda *_: "it is not built")
    texts = rows()
    (batch,) = batches.batches(texts, 10**6, 0)
    make = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, len(texts), HEADS, batch.ids.shape[1], WIDTH, generator=make)
    matrix = ATTENTIONS[name](query, key, batch.mask)
    made = measure(matrix, Positions.of(batch, kinds(batch.ids)), NAMES)
    exact = ATTENTIONS[name](query.double(), key.double(), batch.mask)
    if name in ("sinks", "alibi"):
        exact = matrix
    dense = exact.to_dense().double()
    largest = (
        float((query @ key.mT).abs().max()) * exact._logits.attention.scale
    )  # of the logits: each is off by its eps
    for place, text in enumerate(batch.texts):
        size = LENGTHS[text]
        wanted = expected(dense[place, :, :size, :size], matrix.visible()[place], texts[text])
        for statistic in NAMES:
            torch.testing.assert_close(
                made[statistic][place], wanted[statistic], rtol=0, atol=(64 + largest) * torch.finfo(torch.float32).eps,
                equal_nan=True, msg=lambda text, which=statistic: f"{which}: {text}",
            )  # fmt: skip


@pytest.mark.parametrize("wanted", NAMES)
def test_each_statistic_alone_is_the_same_as_among_all(wanted: str) -> None:
    (batch,) = batches.batches(rows(), 10**6, 0)
    query, key = torch.randn(
        2, len(LENGTHS), HEADS, batch.ids.shape[1], WIDTH, generator=torch.Generator().manual_seed(1)
    )
    matrix, positions = ATTENTIONS["causal"](query, key, batch.mask), Positions.of(batch, kinds(batch.ids))
    alone, among = measure(matrix, positions, [wanted]), measure(matrix, positions, NAMES)
    assert list(alone) == [wanted]
    torch.testing.assert_close(alone[wanted], among[wanted], rtol=0, atol=0, equal_nan=True)


SCORES = ("previous_token", "first_token", "duplicate_token", "induction", "separator", "breadth", "positional")


def test_scores_are_those_of_capture_text_by_text() -> None:
    loaded = induction()
    texts = batches.tokenize(loaded, TEXTS, loaded.max_length)
    kind = KindTable(loaded.tokenizer)
    for batch in batches.batches(texts, 300, batches.pad_id(loaded)):
        positions = Positions.of(batch, kind(batch.ids))
        made: dict[str, dict[str, Tensor]] = {}
        take = lambda name, matrix, made=made, at=positions: made.update({name: measure(matrix, at, SCORES)})  # noqa: E731
        assert set(observing.each_layer(loaded, batch, take).values()) == {None}
        for place, text in enumerate(batch.texts):
            for row in capture.scores(capture.read(loaded, TEXTS[text])):
                for name in SCORES:
                    ours, theirs = float(made[row.layer][name][place, row.head]), getattr(row, name)
                    where = TEXTS[text], row.layer, row.head, name
                    assert ours == pytest.approx(theirs, abs=CLOSE, nan_ok=True), where


def test_a_tie_goes_to_the_first_key_as_in_topk() -> None:
    (batch,) = batches.batches([Tokens(0, [5, 5, 5], [False] * 3, False)], 100, 0)
    zeros = torch.zeros(1, 2, 3, 5)
    rows = weights.Rows.of(AttentionMatrix(zeros, zeros, is_causal=True), torch.ones(1, 3, 1))
    assert rows.best.tolist() == [[[0, 0, 0]] * 2]
    assert batch.ids.tolist() == [[5, 5, 5]]


def test_a_row_that_may_attend_nothing_is_zero() -> None:
    allow = torch.tensor([[True, True, True], [False, False, False], [True, False, True]])
    rows = weights.Rows.of(
        AttentionMatrix(torch.ones(1, 2, 3, 5), torch.ones(1, 2, 3, 5), allow=allow), torch.ones(1, 3, 2)
    )
    assert rows.masses[0, 0].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert (float(rows.entropy[0, 0, 1]), float(rows.maximum[0, 0, 1])) == (0, 0)
    assert 0 <= int(rows.best[0, 0, 1]) < 3
    assert rows.near(1)[0, 0, 1].tolist() == [0, 0, 0]
    assert rows.between(torch.tensor([0]), torch.tensor([[1]]), torch.tensor([[1, 2]])).flatten().tolist() == [0] * 4
    if rows.weights is not None:
        assert rows.at(torch.tensor([0]), torch.tensor([1]), torch.tensor([[1, 2]])).flatten().tolist() == [0] * 4
