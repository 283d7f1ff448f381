"""Experiments on single vectors: dot products, reading another text, turned positions, values of unequal size."""

from collections.abc import Mapping

from clearhead.studio.explore.experiments.experiment import Column, Experiment, Finding, Guess, Setting, band, change
from clearhead.studio.explore.experiments.samples import SampleRange, Samples
from clearhead.studio.explore.experiments.sentences import changed
from clearhead.studio.text.translation import mark

DOTS = Experiment(
    "dots",
    mark("Two arrows at random"),
    mark(
        "Draw two vectors at random, with two numbers each, then with 512. Do they still point the same way by chance?"
    ),
    mark("numbers in a vector"),
    (2, 8, 32, 128, 512),
    (Setting("size", mark("Size of the numbers (standard deviation)"), (1, 2, 3), 0),),
    {
        mark("size of the cosine"): {"cosine": ""},
        mark("spread of the dot product (standard deviation)"): {"spread": ""},
        mark("the same, divided by the root of the width"): {"scaled": ""},
    },
    """
import torch

torch.manual_seed(seed)
width = int(x)
a, b = size * torch.randn(2, 4000, width)
products = (a * b).sum(-1)
found = {
    "cosine": torch.cosine_similarity(a, b).abs().mean().item(),
    "spread": products.std().item(),
    "scaled": (products / width**0.5).std().item(),
}
""",
)


def _dots(column: Column) -> list[str]:
    return [
        *changed(
            column, "cosine", mark("The size of the cosine"),
            meaning={"falls": mark("Vectors with many numbers hardly ever agree by chance: there is room for many.")},
        ),
        *changed(column, "spread", mark("The spread of the plain dot product")),
        *changed(
            column, "scaled", mark("The spread after division by the root of the width"), same=0.05,
            meaning={"same": mark("That division is the one in attention: wide heads get logits like narrow ones.")},
        ),
    ]  # fmt: skip


SOURCE = Experiment(
    "source",
    mark("A longer source"),
    mark("One text reads another. The text that is read gets longer and longer. What grows, and what does not?"),
    mark("words of the source"),
    (4, 16, 64, 256, 1024),
    (Setting("target", mark("Words of the target"), (4, 8, 16), 1),),
    {
        mark("rows of the output"): {"rows": ""},
        mark("logits of one head"): {"logits": ""},
        mark("largest weight of a row"): {"largest": ""},
    },
    """
import torch

torch.manual_seed(seed)
queries = torch.randn(200, target, 32)
keys, values = torch.randn(2, 200, int(x), 32)
logits = queries @ keys.mT / 32**0.5
weights = logits.softmax(-1)
output = weights @ values
found = {
    "rows": output.shape[1],
    "logits": logits[0].numel(),
    "largest": weights.max(-1).values.mean().item(),
}
""",
)


def _source(column: Column) -> list[str]:
    return [
        *changed(
            column, "rows", mark("The number of output rows"), same=0.0,
            meaning={"same": mark("Queries come from the target, so the output has a row for each word of it.")},
        ),
        *changed(column, "logits", mark("The number of logits"), same=0.0),
        *changed(
            column, "largest", mark("The largest weight of a row"),
            meaning={"falls": mark("These keys are random. Shared among more of them, a row is spread thinner.")},
        ),
    ]  # fmt: skip


TURNS = Experiment(
    "turns",
    mark("Fast hands and slow hands"),
    mark("RoPE turns pairs of numbers like the hands of a clock. How far apart can two positions be before they blur?"),
    mark("distance between query and key"),
    (1, 4, 16, 64, 256, 1024),
    (
        Setting("base", mark("Base of the frequencies"), (100, 10_000, 1_000_000), 1),
        Setting("width", mark("Width of a head"), (32, 64, 128), 1),
    ),
    {
        mark("logit of two equal vectors, as a share of that at distance 0"): {"logit": ""},
        mark("share of the pairs that have turned less than a quarter"): {"slow": ""},
    },
    """
import torch

torch.manual_seed(seed)
speeds = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
angles = x * speeds
a, b = torch.randn(2, 2000, width // 2, dtype=torch.float64)  # the pairs of 2,000 vectors
size = a.square() + b.square()
found = {
    "logit": (size @ angles.cos() / size.sum(-1)).mean().item(),
    "slow": (angles < torch.pi / 2).double().mean().item(),
}
""",
)


def _turns(column: Column) -> list[str]:
    return [
        *changed(
            column, "logit", mark("The logit of two equal vectors"),
            meaning={"falls": mark("Equal words count for less when they are far apart, without any training.")},
        ),
        *changed(
            column, "slow", mark("The share of slow pairs"),
            meaning={"falls": mark("Those that are left still tell a far position from one that is farther.")},
        ),
    ]  # fmt: skip


INFLUENCE = Experiment(
    "influence",
    mark("Weight and influence"),
    mark(
        "The key with the largest weight: is it the one whose removal changes the output most? Make the values unequal."
    ),
    mark("largest value, as a multiple of the smallest"),
    (1, 3, 10, 30, 100),
    (Setting("keys", mark("Keys"), (4, 8, 16, 32), 1),),
    {
        mark("share of rows whose most influential key is named"): {
            "weight": mark("by the largest weight"),
            "sized": mark("by weight × size of the value"),
        },
    },
    """
import torch

torch.manual_seed(seed)
rows, width = 2000, 16
weights = (1.5 * torch.randn(rows, keys)).softmax(-1)
sizes = x ** torch.rand(rows, keys, 1)
values = torch.nn.functional.normalize(torch.randn(rows, keys, width), dim=-1) * sizes
output = (weights[:, None] @ values)[:, 0]

# Without a key the others grow by 1 / (1 - w), so the output moves by w / (1 - w) times its distance from the value.
effects = weights / (1 - weights) * (output[:, None] - values).norm(dim=-1)
most = effects.argmax(1)
found = {
    "weight": (weights.argmax(1) == most).double().mean().item(),
    "sized": ((weights * values.norm(dim=-1)).argmax(1) == most).double().mean().item(),
}
""",
)


def _influence(column: Column) -> list[str]:
    return [
        *changed(
            column, "weight", mark("The share that the largest weight names"),
            meaning={"falls": mark("A picture of weights does not show how large the values are.")},
        ),
        *changed(column, "sized", mark("The share that weight × size of the value names")),
    ]  # fmt: skip


VECTOR_EXPERIMENTS = (DOTS, SOURCE, TURNS, INFLUENCE)
VECTOR_FINDINGS: Mapping[str, Finding] = {
    "dots": Finding(
        Guess(
            mark("From 2 numbers to 512, the size of the cosine of two random vectors will"),
            (mark("fall to less than half"), mark("stay between half and double"), mark("more than double")),
            lambda column: band(change(column, "cosine"), 0.5, 2.0),
        ),
        _dots,
    ),
    "source": Finding(
        Guess(
            mark("The source becomes 256 times as long. The number of output rows will"),
            (mark("fall"), mark("stay the same"), mark("rise")),
            lambda column: band(change(column, "rows"), 1.0, 1.0),
        ),
        _source,
    ),
    "turns": Finding(
        Guess(
            mark("From distance 1 to 1,024, the logit of two equal vectors will"),
            (mark("fall to less than half"), mark("fall, but not so far"), mark("stay the same or rise")),
            lambda column: band(change(column, "logit"), 0.5, 1.0 - 1e-9),
        ),
        _turns,
    ),
    "influence": Finding(
        Guess(
            mark("Where values differ a hundredfold, the largest weight names the most influential key"),
            (mark("in less than half of the rows"), mark("in half to nine tenths"), mark("in nearly all")),
            lambda column: _third(column("weight")[-1], 0.5, 0.9),
        ),
        _influence,
    ),
}


def _third(samples: Samples, low: float, high: float) -> int:
    """Return 0 where the median is below `low`, 1 up to `high`, 2 above."""
    middle = SampleRange.of(samples).middle
    return 0 if middle < low else 1 if middle <= high else 2
