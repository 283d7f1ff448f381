"""Forms of attention whose weights are not one softmax of products: not recorded, and listed with the reason."""

import torch
import torch.nn.functional as F

from .recorded_forms import CAUSAL, B, H, L, heads_mixed

MISSED = {}


def missed(compute):
    MISSED[compute.__name__] = compute
    return compute


@missed
def mask_after_softmax(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) * CAUSAL) @ v


@missed
def mask_after_softmax_in_place(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    weights.mul_(CAUSAL)
    return m.keep(weights) @ v


@missed
def one_weight_overwritten(m, q, k, v):
    weights = (q @ k.mT).softmax(-1).detach()
    weights[:, :, :, 0] = 0
    return m.keep(weights) @ v


@missed
def overwritten_through_a_view(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    weights.view(B * H, L, L).mul_(CAUSAL)
    return m.keep(weights) @ v


@missed
def overwritten_as_an_output(m, q, k, v):
    weights = (q @ k.mT).softmax(-1).detach()
    torch.mul(weights, CAUSAL, out=weights)
    return m.keep(weights) @ v


@missed
def reattention(m, q, k, v):
    weights = torch.einsum("bhij,hg->bgij", (q @ k.mT).softmax(-1), m.mix.weight)
    return m.keep(heads_mixed(m.norm, weights)) @ v


@missed
def talking_heads(m, q, k, v):
    return m.keep(heads_mixed(m.other, heads_mixed(m.mix, q @ k.mT).softmax(-1))) @ v


@missed
def gated_weights(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) * q.sigmoid().mean(-1, keepdim=True)) @ v


@missed
def divided_weights(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) / 2) @ v


@missed
def squared_and_normalised(m, q, k, v):
    weights = (q @ k.mT).softmax(-1) ** 2
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@missed
def dropout_in_training(m, q, k, v):
    return m.keep(F.dropout((q @ k.mT).softmax(-1), 0.5, training=True)) @ v


@missed
def dropout_in_place(m, q, k, v):
    return m.keep(F.dropout((q @ k.mT).softmax(-1), 0.5, True, True)) @ v


@missed
def difference_of_two(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) - 0.3 * (k @ q.mT).softmax(-1)) @ v


@missed
def two_steps_at_once(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    return m.keep(weights @ weights) @ v


@missed
def used_from_the_other_side(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1).mT) @ v


@missed
def slots(m, q, k, v):
    weights = (q @ k.mT).softmax(-2) + 1e-3
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@missed
def one_more_than_the_sum(m, q, k, v):
    weights = (q @ k.mT).exp()
    return m.keep(weights / (1 + weights.sum(-1, keepdim=True))) @ v


@missed
def a_sink_dropped(m, q, k, v):
    logits = torch.cat([q @ k.mT, q.sum(-1, keepdim=True)], -1)
    return m.keep(logits.softmax(-1)[..., :-1]) @ v


@missed
def divided_later(m, q, k, v):
    weights = (q @ k.mT).exp()
    return (m.keep(weights) @ v) / weights.sum(-1, keepdim=True)


@missed
def heads_mixed_in_an_einsum_of_three(m, q, k, v):
    return torch.einsum("bhij,hg,bgjd->bgid", m.keep((q @ k.mT).softmax(-1)), m.mix.weight, v)


@missed
def masked_in_an_einsum_of_three(m, q, k, v):
    return torch.einsum("bhij,ij,bhjd->bhid", m.keep((q @ k.mT).softmax(-1)), CAUSAL, v)


@missed
def padded_in_an_einsum_of_three(m, q, k, v):
    return torch.einsum("bhij,bj,bhjd->bhid", m.keep((q @ k.mT).softmax(-1)), CAUSAL[:B], v)


# Not attention by products alone, so that only a name tells that something was missed.
ONLY_BY_NAME = {}


def only_by_name(compute):
    ONLY_BY_NAME[compute.__name__] = compute
    return compute


@only_by_name
def no_values(m, q, k, v):
    return v + (q @ k.mT).softmax(-1).mean()


@only_by_name
def sigmoid(m, q, k, v):
    return (q @ k.mT).sigmoid() @ v


@only_by_name
def elementwise_values(m, q, k, v):
    return ((q @ k.mT).softmax(-1)[..., None] * v[:, :, None]).sum(-2)


@only_by_name
def additive(m, q, k, v):
    return torch.tanh(q[:, :, :, None] + k[:, :, None]).sum(-1).softmax(-1) @ v
