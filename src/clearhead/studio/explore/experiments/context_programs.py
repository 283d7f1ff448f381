"""Experiments on what surrounds one softmax: a window, positions, a cache of keys and values, dropout."""

from clearhead.studio.explore.experiments.experiment import Experiment, Setting
from clearhead.studio.text.translation import mark

WINDOW = Experiment(
    "window",
    mark("What a window loses"),
    mark("A query that sees only the last few tokens saves work. How much of its weight, and of its output, is lost?"),
    mark("width of the window"),
    (4, 8, 16, 32, 64, 128),
    (
        Setting("length", mark("Tokens"), (128, 256, 512), 1),
        Setting("sharpness", mark("Sharpness: the logits are multiplied by this"), (1, 2, 4), 0),
    ),
    {
        mark("share of the weight outside the window"): {"lost": ""},
        mark("distance of the output from full causal attention"): {"distance": ""},
        mark("pairs that are computed"): {"pairs": ""},
    },
    """
import torch

torch.manual_seed(seed)
logits = sharpness * torch.randn(length, 64) @ torch.randn(64, length) / 8
values = torch.randn(length, 64)
back = torch.arange(length)[:, None] - torch.arange(length)
causal = back >= 0
inside = causal & (back < x)
full = logits.masked_fill(~causal, float("-inf")).softmax(-1)
narrow = logits.masked_fill(~inside, float("-inf")).softmax(-1)
found = {
    "lost": full.masked_fill(inside, 0).sum(-1).mean().item(),
    "distance": ((narrow - full) @ values).norm(dim=-1).mean().item(),
    "pairs": inside.sum().item(),
}
""",
)

POSITIONS = Experiment(
    "positions",
    mark("Past the trained length"),
    mark("A head is fitted to look three tokens back, on positions 0 to 63. Does it still do so further on?"),
    mark("first of the 32 positions that are tested"),
    (0, 32, 64, 128, 512, 2048),
    (Setting("width", mark("Width of a position's vector"), (16, 32, 64), 2),),
    {
        mark("share of queries that find the right key"): {
            "table": mark("a random vector for each position"),
            "rotary": mark("rotation by the distance"),
        },
    },
    """
import torch

torch.manual_seed(seed)
trained = torch.arange(64)
tested = torch.arange(32) + int(x)

def target(at):
    return (at[:, None] - at == 3).double()

def share(scores):
    return (scores[3:].argmax(-1) == torch.arange(len(scores) - 3)).double().mean().item()

# A table: scores are P W P', with W by least squares.
table = torch.randn(4096, width, dtype=torch.float64)
inverse = torch.linalg.pinv(table[trained])
fitted = inverse @ target(trained) @ inverse.T
found = {"table": share(table[tested] @ fitted @ table[tested].T)}

# Rotation: a score is a sum of waves of the distance, with their heights by least squares.
frequencies = 10_000 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)

def waves(at):
    angle = (at[:, None] - at)[..., None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], -1)

heights = torch.linalg.pinv(waves(trained).flatten(0, 1)) @ target(trained).flatten()
found["rotary"] = share(waves(tested) @ heights)
""",
)

CACHE = Experiment(
    "cache",
    mark("Key heads and the cache"),
    mark("Thirty-two query heads share fewer key heads. What does the cache of one layer take, and one more token?"),
    mark("key heads"),
    (1, 2, 4, 8, 16, 32),
    (
        Setting("length", mark("Tokens in the cache"), (512, 1024, 2048, 4096), 1),
        Setting("width", mark("Width of a head"), (32, 64, 128), 1),
    ),
    {
        mark("cache of one layer, MB"): {"megabytes": ""},
        mark("attention of one more token, ms"): {"milliseconds": ""},
    },
    """
import time
import torch

torch.manual_seed(seed)
heads = int(x)
keys, values = torch.randn(2, 1, heads, length, width)
queries = torch.randn(1, heads, 32 // heads, width)  # those that share a key head stand together
times = []
with torch.no_grad():
    for _ in range(7):
        start = time.perf_counter()
        torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
        times.append(time.perf_counter() - start)
found = {
    "megabytes": (keys.nbytes + values.nbytes) / 1e6,
    "milliseconds": 1000 * sorted(times)[3],
}
""",
)

DROPOUT = Experiment(
    "dropout",
    mark("Dropout on weights"),
    mark("Weights are dropped at random, and the others grow to make up for it. What does a row sum to then?"),
    mark("rate"),
    (0, 0.1, 0.2, 0.3, 0.5, 0.7),
    (Setting("keys", mark("Keys"), (8, 32, 128), 0),),
    {
        mark("mean sum of a row"): {"mean": ""},
        mark("spread of the sum (standard deviation)"): {"spread": ""},
        mark("distance of the output from that without dropout"): {"distance": ""},
    },
    """
import torch

torch.manual_seed(seed)
weights = torch.randn(20_000, keys).softmax(-1)
values = torch.randn(keys, 8)
dropped = torch.nn.functional.dropout(weights, x)
found = {
    "mean": dropped.sum(-1).mean().item(),
    "spread": (dropped - weights).sum(-1).pow(2).mean().sqrt().item(),
    "distance": ((dropped - weights) @ values).norm(dim=-1).mean().item(),
}
""",
)
