"""Experiments on trained models: how broadly each layer looks, and what copying hangs on."""

from collections.abc import Mapping

from clearhead.studio.explore.experiments.experiment import SIDE, Column, Experiment, Finding, Guess, Setting, change
from clearhead.studio.explore.experiments.samples import Change
from clearhead.studio.explore.experiments.sentences import apart, changed
from clearhead.studio.text.translation import mark

LAYERS = Experiment(
    "layers",
    mark("From the first layer to the last"),
    mark("Six layers of twelve heads read five sentences. Do early heads look more broadly than late ones?"),
    mark("layer"),
    (0, 1, 2, 3, 4, 5),
    (Setting("trained", mark("The model: 0 with random numbers, 1 trained"), (0, 1), 1),),
    {
        mark("keys in effect, mean of the heads"): {"breadth": ""},
        mark("weight on [CLS] and [SEP]"): {"special": ""},
        mark("mean distance of what is looked at, in tokens"): {"distance": ""},
    },
    """
import torch

text = sentences[seed]
if not trained:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.02)
attention = list(capture.read(loaded, text).record.values())[int(x)]
weights = attention.to_dense()[0].double()
places = torch.arange(weights.shape[-1])
apart = (places[:, None] - places).abs()
found = {
    "breadth": attention.entropy()[0].exp().mean().item(),
    "special": weights[..., [0, -1]].sum(-1).mean().item(),
    "distance": (weights * apart).sum(-1).mean().item(),
}
""",
    setup="""
import torch
from clearhead import capture

loaded = capture.load()
sentences = (
    "The animal didn't cross the street because it was too tired",
    "The bank by the river was closed, so the man sat down.",
    "She put the glass on the table and it broke.",
    "When the storm was over, the children ran to the beach.",
    "The letter that the lawyer wrote never reached the judge.",
)
""",
)


def _layers(column: Column) -> list[str]:
    return [
        *changed(column, "breadth", mark("The number of keys in effect")),
        *changed(column, "special", mark("The weight on [CLS] and [SEP]")),
        *changed(column, "distance", mark("The mean distance")),
    ]


COPYING = Experiment(
    "copying",
    mark("Switch a head off"),
    mark("Random letters, then the same again. The model copies, until the head that it needs is switched off."),
    mark("letters before the repetition"),
    (4, 8, 16, 32, 64),
    (
        Setting("layer", mark("Layer of the head that is switched off"), (0, 1), 0),
        Setting("head", mark("The head"), (0, 1, 2, 3), 3),
    ),
    {
        mark("loss in the repetition, nats"): {"all": mark("all heads"), "without": mark("one head off")},
        mark("loss before the repetition, nats"): {"before": ""},
    },
    """
import torch

generator = torch.Generator().manual_seed(seed)
tokens = torch.randint(2, len(loaded.tokenizer), (8, int(x)), generator=generator)
twice = torch.cat([tokens, tokens], 1)

def silence(_, given):
    mixed = given[0].clone()
    mixed[..., 16 * head : 16 * (head + 1)] = 0  # a head is 16 wide
    return (mixed, *given[1:])

def losses():
    with torch.no_grad():
        hidden = loaded.model(input_ids=twice).last_hidden_state
        logits = hidden @ loaded.model.get_input_embeddings().weight.T
    return torch.nn.functional.cross_entropy(logits[:, :-1].mT, twice[:, 1:], reduction="none").mean(0)

whole = losses()
hook = loaded.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(silence)
found = {
    "all": whole[int(x) :].mean().item(),
    "without": losses()[int(x) :].mean().item(),
    "before": whole[: int(x) - 1].mean().item(),
}
hook.remove()
""",
    setup="""
import torch
from clearhead import capture

loaded = capture.load("induction")
""",
)


def _copying(column: Column) -> list[str]:
    return [
        *changed(
            column, "all", mark("The loss in the repetition, with all heads,"),
            meaning={"rises": mark("The longest text has 128 letters; the model was trained on 96.")},
        ),
        *apart(
            column, "without", "all", mark("the loss with this head off"), mark("the loss with all heads"),
            mark("letters"),
        ),
        *apart(
            column, "all", "before", mark("the loss in the repetition"), mark("the loss before it"), mark("letters"),
            meaning={"falls": mark("Nothing but copying can help with random letters: the model copies.")},
        ),
    ]  # fmt: skip


MODEL_EXPERIMENTS = (LAYERS, COPYING)
MODEL_FINDINGS: Mapping[str, Finding] = {
    "layers": Finding(
        Guess(
            mark("From the first layer to the last, the number of keys that a head looks at in effect will"),
            (mark("fall"), mark("stay the same, or differ from sentence to sentence"), mark("rise")),
            lambda column: SIDE[change(column, "breadth").direction],
        ),
        _layers,
    ),
    "copying": Finding(
        Guess(
            mark("With this head off, the loss in the repetition will"),
            (mark("fall"), mark("stay the same"), mark("rise")),
            lambda column: SIDE[Change.between(column("all")[-1], column("without")[-1]).direction],
        ),
        _copying,
    ),
}
