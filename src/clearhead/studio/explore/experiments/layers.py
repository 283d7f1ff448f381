"""Experiments on layers: what the weights cost, depth with and without a residual stream, blocks, a matrix memory."""

from collections.abc import Mapping

from clearhead.studio.explore.experiments.experiment import (
    SIDE,
    TIME,
    Column,
    Experiment,
    Finding,
    Guess,
    Setting,
    band,
    change,
)  # fmt: skip
from clearhead.studio.explore.experiments.samples import Change
from clearhead.studio.explore.experiments.sentences import apart, changed
from clearhead.studio.text.translation import mark

ASKED = Experiment(
    "asked",
    mark("Asking for the weights"),
    mark("The same layer, with need_weights=True and with False. What does looking cost?"),
    mark("tokens"),
    (32, 64, 128, 256, 512),
    (
        Setting("width", mark("Width of the layer"), (64, 128, 256), 1),
        Setting("heads", mark("Heads"), (2, 4, 8), 1),
    ),
    {
        mark("forward, ms"): {"with_weights": mark("with the weights"), "without": mark("without")},
        mark("the weights of all heads, MB"): {"megabytes": ""},
        mark("largest difference of the outputs"): {"difference": ""},
    },
    """
import time
import torch

torch.manual_seed(seed)
layer = torch.nn.MultiheadAttention(width, heads, batch_first=True).eval()
tokens = torch.randn(1, int(x), width)

def milliseconds(**given):
    times = []
    for _ in range(7):
        start = time.perf_counter()
        layer(tokens, tokens, tokens, **given)
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[3]

with torch.no_grad():
    looked, weights = layer(tokens, tokens, tokens, average_attn_weights=False)
    plain, _ = layer(tokens, tokens, tokens, need_weights=False)
    found = {
        "with_weights": milliseconds(average_attn_weights=False),
        "without": milliseconds(need_weights=False),
        "megabytes": weights.nbytes / 1e6,
        "difference": (looked - plain).abs().max().item(),
    }
""",
)


def _asked(column: Column) -> list[str]:
    return [
        *apart(
            column, "with_weights", "without", mark("the time with the weights"), mark("the time without"),
            mark("tokens"), same=TIME,
        ),
        *changed(column, "megabytes", mark("The memory of the weights"), same=0.0),
        *changed(column, "difference", mark("The largest difference of the outputs")),
    ]  # fmt: skip


DEPTH = Experiment(
    "depth",
    mark("Attention upon attention"),
    mark("Stack layers of attention, bare or in a block with a residual stream and a norm. Do tokens stay apart?"),
    mark("layers"),
    (1, 2, 4, 8, 16),
    (Setting("tokens", mark("Tokens"), (8, 16, 32), 1), Setting("width", mark("Width"), (32, 64), 0)),
    {
        mark("distance of two tokens (1 − cosine)"): {"bare": mark("attention alone"), "block": mark("in a block")},
        mark("gradient at the input, as a share of the output’s"): {
            "bare_gradient": mark("attention alone"),
            "block_gradient": mark("in a block"),
        },
    },
    """
import torch

def run(block):
    torch.manual_seed(seed)
    start = torch.randn(1, tokens, width, requires_grad=True)
    stream = start
    for _ in range(int(x)):
        layer = torch.nn.MultiheadAttention(width, 4, batch_first=True)
        given = torch.nn.functional.layer_norm(stream, (width,)) if block else stream
        moved, _ = layer(given, given, given, need_weights=False)
        stream = stream + moved if block else moved
    unit = torch.nn.functional.normalize(stream[0], dim=-1)
    others = ~torch.eye(tokens, dtype=torch.bool)
    (gradient,) = torch.autograd.grad(stream.norm(), start)
    distance = (1 - unit @ unit.T)[others].mean().clamp_min(0)  # rounding may leave less than nothing
    return distance.item(), gradient.norm().item()

found = {}
found["bare"], found["bare_gradient"] = run(block=False)
found["block"], found["block_gradient"] = run(block=True)
""",
)


def _depth(column: Column) -> list[str]:
    return [
        *changed(column, "bare_gradient", mark("The gradient through attention alone")),
        *changed(column, "block_gradient", mark("The gradient through blocks")),
        *apart(
            column, "bare", "block", mark("the distance of two tokens under attention alone"),
            mark("that in blocks"), mark("layers"),
            meaning={"falls": mark("Layer after layer of means makes all tokens alike; the stream keeps them apart.")},
        ),
    ]  # fmt: skip


BLOCKS = Experiment(
    "blocks",
    mark("Block by block"),
    mark("One row of 1,024 keys, read a block at a time with a running maximum. What do larger blocks change?"),
    mark("keys in a block"),
    (1, 4, 16, 64, 256, 1024),
    (Setting("spread", mark("Spread of the logits"), (1, 3, 10), 0),),
    {
        mark("logits held at a time"): {"held": ""},
        mark("times the running maximum moves"): {"moves": ""},
        mark("largest error, in units of float32’s epsilon"): {"error": ""},
    },
    """
import torch

torch.manual_seed(seed)
rows, keys, block = 200, 1024, int(x)
logits = spread * torch.randn(rows, keys)
values = torch.randn(keys, 8)
top = torch.full((rows, 1), float("-inf"))
total, mixed, moves = torch.zeros(rows, 1), torch.zeros(rows, 8), 0
for start in range(0, keys, block):
    part = logits[:, start : start + block]
    higher = torch.maximum(top, part.max(-1, keepdim=True).values)
    moves += (higher > top).float().mean().item()
    kept = (top - higher).exp()  # what the earlier sums still count for
    shares = (part - higher).exp()
    total = total * kept + shares.sum(-1, keepdim=True)
    mixed = mixed * kept + shares @ values[start : start + block]
    top = higher
exact = logits.double().softmax(-1) @ values.double()
found = {
    "held": block,
    "moves": moves,
    "error": ((mixed / total - exact).abs().max() / torch.finfo(torch.float32).eps).item(),
}
""",
)


def _blocks(column: Column) -> list[str]:
    return [
        *changed(column, "held", mark("The number of logits held at a time"), same=0.0),
        *changed(
            column, "moves", mark("The number of moves of the running maximum"),
            meaning={"falls": mark("Each move rescales the earlier sums; nothing is ever read again.")},
        ),
        *changed(column, "error", mark("The largest error")),
    ]  # fmt: skip


MEMORY = Experiment(
    "memory",
    mark("A memory that fills up"),
    mark("Store pairs in one matrix of fixed size, or keep them all for a softmax. How many are found again?"),
    mark("pairs that are stored"),
    (4, 16, 64, 256, 1024),
    (Setting("width", mark("Width of a key"), (16, 32, 64), 1),),
    {
        mark("share of the pairs that are found again"): {
            "matrix": mark("one matrix"),
            "softmax": mark("softmax attention"),
        },
        mark("numbers that are kept"): {"matrix_size": mark("one matrix"), "softmax_size": mark("softmax attention")},
    },
    """
import torch

torch.manual_seed(seed)
pairs = int(x)
keys = torch.nn.functional.normalize(torch.randn(pairs, width), dim=-1)
values = torch.randn(pairs, width)

def share(output):
    return (torch.cdist(output, values).argmin(-1) == torch.arange(pairs)).double().mean().item()

matrix = keys.T @ values
found = {
    "matrix": share(keys @ matrix),
    "softmax": share((20 * keys @ keys.T).softmax(-1) @ values),
    "matrix_size": matrix.numel(),
    "softmax_size": keys.numel() + values.numel(),
}
""",
)


def _memory(column: Column) -> list[str]:
    return [
        *changed(
            column, "matrix", mark("The share that the matrix finds"),
            meaning={"falls": mark("Its size is fixed, and what is stored beyond it blurs what was there.")},
        ),
        *changed(column, "softmax", mark("The share that softmax attention finds")),
        *changed(column, "softmax_size", mark("What softmax attention keeps"), same=0.0),
    ]  # fmt: skip


LAYER_EXPERIMENTS = (ASKED, DEPTH, BLOCKS, MEMORY)
LAYER_FINDINGS: Mapping[str, Finding] = {
    "asked": Finding(
        Guess(
            mark("At the longest text, the forward pass that returns the weights will take"),
            (mark("less time"), mark("about the same"), mark("more time")),
            lambda column: SIDE[Change.between(column("without")[-1], column("with_weights")[-1], same=TIME).direction],
        ),
        _asked,
    ),
    "depth": Finding(
        Guess(
            mark("After sixteen layers of attention alone, compared with sixteen blocks, tokens will be"),
            (mark("closer together"), mark("equally far apart"), mark("farther apart")),
            lambda column: SIDE[Change.between(column("block")[-1], column("bare")[-1]).direction],
        ),
        _depth,
    ),
    "blocks": Finding(
        Guess(
            mark("From blocks of one key to a single block of 1,024, the error will"),
            (
                mark("fall to less than a tenth"),
                mark("stay between a tenth and ten times"),
                mark("grow more than tenfold"),
            ),
            lambda column: band(change(column, "error"), 0.1, 10.0),
        ),
        _blocks,
    ),
    "memory": Finding(
        Guess(
            mark("From 4 pairs to 1,024, the share that the matrix finds again will"),
            (mark("fall to less than a tenth"), mark("fall, but not so far"), mark("stay the same or rise")),
            lambda column: band(change(column, "matrix"), 0.1, 1.0 - 1e-9),
        ),
        _memory,
    ),
}
