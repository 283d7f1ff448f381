"""The experiments: each is a program that measures one point, run confined on this machine on request.

A program reads its point from `x`, its seed from `seed` and its settings by name, and stores a dict of measured numbers
in `found`. It runs once for each of `SEEDS`, after `setup` if there is one, so that the findings can tell a change from
chance.
"""

from collections.abc import Mapping
from textwrap import indent

from clearhead.studio.explore.experiments.context_programs import CACHE, DROPOUT, POSITIONS, WINDOW
from clearhead.studio.explore.experiments.experiment import Experiment, Setting
from clearhead.studio.explore.experiments.layers import LAYER_EXPERIMENTS
from clearhead.studio.explore.experiments.models import MODEL_EXPERIMENTS
from clearhead.studio.explore.experiments.vectors import VECTOR_EXPERIMENTS
from clearhead.studio.text.translation import mark

SEEDS = range(5)
_EACH = """
import json
@given
@setup
seeds = []
for seed in @seeds:
@program
print(json.dumps(seeds))
"""

HEADS = Experiment(
    "heads",
    mark("More heads, same width"),
    mark("What do more heads cost at the same width, and what do they change?"),
    mark("heads"),
    (1, 2, 4, 8, 16, 32),
    (
        Setting("width", mark("Width of the layer"), (64, 128, 256, 512), 1),
        Setting("length", mark("Tokens"), (32, 64, 128, 256), 1),
    ),
    {
        mark("parameters"): {"parameters": ""},
        mark("forward, ms"): {"milliseconds": ""},
        mark("mean entropy of a row, nats"): {"entropy": ""},
    },
    """
import time
import torch

torch.manual_seed(seed)
layer = torch.nn.MultiheadAttention(width, int(x), batch_first=True).eval()
tokens = torch.randn(1, length, width)
times = []
with torch.no_grad():
    for _ in range(7):
        start = time.perf_counter()
        layer(tokens, tokens, tokens, need_weights=False)
        times.append(time.perf_counter() - start)
    _, weights = layer(tokens, tokens, tokens, average_attn_weights=False)
entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1).mean()
found = {
    "parameters": sum(p.numel() for p in layer.parameters()),
    "milliseconds": 1000 * sorted(times)[3],
    "entropy": entropy.item(),
}
""",
)

SCALE = Experiment(
    "scale",
    mark("With and without the scale"),
    mark("What happens to the weights and to the gradient as heads get wider, with 1/√D and without it?"),
    mark("width of a head, D"),
    (4, 16, 64, 256, 1024),
    (Setting("keys", mark("Keys"), (4, 16, 64, 256), 1),),
    {
        mark("largest weight"): {"largest_scaled": mark("with 1/√D"), "largest_plain": mark("without")},
        mark("gradient at the logits"): {"gradient_scaled": mark("with 1/√D"), "gradient_plain": mark("without")},
    },
    """
import torch

torch.manual_seed(seed)
width = int(x)
found = {}
for name, scale in (("scaled", width**-0.5), ("plain", 1.0)):
    logits = torch.randn(500, width) @ torch.randn(keys, width).T * scale
    logits.requires_grad_()
    weights = logits.softmax(-1)
    (weights @ torch.randn(keys, 1)).sum().backward()
    found[f"largest_{name}"] = weights.max(-1).values.mean().item()
    found[f"gradient_{name}"] = logits.grad.norm(dim=-1).mean().item()
""",
)

LENGTH = Experiment(
    "length",
    mark("Length: reach and cost"),
    mark("How far back does a gradient reach, in a recurrent layer and in attention, and what does length cost?"),
    mark("tokens"),
    (16, 32, 64, 128, 256, 512),
    (Setting("width", mark("Width"), (16, 32, 64), 1),),
    {
        mark("gradient at the first token"): {"attention": mark("attention"), "recurrent": mark("recurrent")},
        mark("attention forward, ms"): {"milliseconds": ""},
        mark("one head’s weights, MB"): {"megabytes": ""},
    },
    """
import time
import torch

torch.manual_seed(seed)
length = int(x)
tokens = torch.randn(1, length, width, requires_grad=True)

def reach(last):
    (gradient,) = torch.autograd.grad(last.norm(), tokens)
    return gradient[0, 0].norm().item()

recurrent = torch.nn.RNN(width, width, batch_first=True)
layer = torch.nn.MultiheadAttention(width, 4, batch_first=True)
found = {
    "recurrent": reach(recurrent(tokens)[0][0, -1]),
    "attention": reach(layer(tokens, tokens, tokens, need_weights=False)[0][0, -1]),
    "megabytes": length * length * 4 / 1e6,
}
times = []
with torch.no_grad():
    for _ in range(7):
        start = time.perf_counter()
        torch.nn.functional.scaled_dot_product_attention(tokens[None], tokens[None], tokens[None])
        times.append(time.perf_counter() - start)
found["milliseconds"] = 1000 * sorted(times)[3]
""",
)

HARD = Experiment(
    "hard",
    mark("From soft to hard"),
    mark("As the temperature falls, weights go to one key. What happens to the gradient that has to train them?"),
    mark("temperature"),
    (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    (Setting("keys", mark("Keys"), (4, 16, 64), 1),),
    {
        mark("entropy of a row, nats"): {"entropy": ""},
        mark("distance from taking the best key alone"): {"distance": ""},
        mark("gradient at the logits"): {"gradient": ""},
    },
    """
import torch

torch.manual_seed(seed)
logits = torch.randn(2000, keys, dtype=torch.float64, requires_grad=True)
values = torch.randn(keys, 8, dtype=torch.float64)
weights = (logits / x).softmax(-1)
output = weights @ values
(gradient,) = torch.autograd.grad(output.sum(), logits)
found = {
    "entropy": -(weights * weights.clamp_min(1e-300).log()).sum(-1).mean().item(),
    "distance": (output - values[logits.argmax(-1)]).norm(dim=-1).mean().item(),
    "gradient": gradient.norm(dim=-1).median().item(),
}
""",
)

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.id: experiment
    for experiment in (
        *(HEADS, SCALE, LENGTH, HARD, WINDOW, POSITIONS, CACHE, DROPOUT),
        *VECTOR_EXPERIMENTS,
        *LAYER_EXPERIMENTS,
        *MODEL_EXPERIMENTS,
    )
}


def program(experiment: Experiment, values: Mapping[str, float]) -> str:
    """Return the source that measures one point: the experiment's program, once for each seed."""
    given = "".join(f"{name} = {value}\n" for name, value in values.items())
    repeated = indent(experiment.program.strip() + "\nseeds.append(found)", "    ")
    return (
        _EACH.replace("@given", given)
        .replace("@setup", experiment.setup.strip())
        .replace("@seeds", repr(SEEDS))
        .replace("@program", repeated)
    )
