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


@missed
def windows_by_as_strided(m, q, k, v):
    windows = []
    for padded in (F.pad(t, (0, 0, 2, 0)).contiguous() for t in (k, v)):
        batch, head, place, part = padded.stride()
        windows.append(padded.as_strided((*k.shape[:3], 3, k.shape[3]), (batch, head, place, place, part)))
    weights = torch.einsum("bhld,bhlwd->bhlw", q, windows[0]).softmax(-1)
    return torch.einsum("bhlw,bhlwd->bhld", weights, windows[1])


@missed
def several_sinks_dropped(m, q, k, v):
    logits = torch.cat([q @ k.mT, m.place[:, :2, 0].expand(B, H, L, 2)], -1)
    return m.keep(logits.softmax(-1)[..., :-2]) @ v


@missed
def a_padded_key_dropped(m, q, k, v):
    return m.keep((q @ F.pad(k, (0, 0, 0, 1)).mT).softmax(-1)[..., :-1]) @ v


@missed
def differential(m, q, k, v):
    halves = ((q[..., part : part + 3] @ k[..., part : part + 3].mT).softmax(-1) for part in (0, 3))
    return m.keep(next(halves) - 0.2 * next(halves)) @ v


@missed
def differential_by_one_softmax(m, q, k, v):
    q, k = (torch.stack([t[..., :3], t[..., 3:6]], 2).flatten(1, 2) for t in (q, k))
    weights = (q @ k.mT).softmax(-1).unflatten(1, (H, 2))
    return m.keep(weights[:, :, 0] - 0.2 * weights[:, :, 1]) @ v


@missed
def a_running_softmax_over_blocks_of_keys(m, q, k, v):
    top, total, out = torch.full((B, H, L, 1), -torch.inf), 0.0, 0.0
    for keys in (slice(0, 3), slice(3, L)):
        logits = q @ k[:, :, keys].mT
        new = torch.maximum(top, logits.amax(-1, keepdim=True))
        part, fade = torch.exp(logits - new), torch.exp(top - new)
        total, out, top = total * fade + part.sum(-1, keepdim=True), out * fade + part @ v[:, :, keys], new
    return out / total


@missed
def only_the_strongest_keys_gathered(m, q, k, v):
    logits, keys = (q @ k.mT).topk(2, -1)
    values = v[:, :, None].expand(B, H, L, L, -1).gather(3, keys[..., None].expand(-1, -1, -1, -1, v.shape[-1]))
    return torch.einsum("bhik,bhikd->bhid", logits.softmax(-1), values)


# Weights that are a product of two tensors, changed by something else than a softmax: named in a module of any name.
UNNORMALISED = {}


def unnormalised(compute):
    UNNORMALISED[compute.__name__] = compute
    return compute


@unnormalised
def sigmoid(m, q, k, v):
    return (q @ k.mT).sigmoid() @ v


@unnormalised
def relu_over_the_length(m, q, k, v):
    return ((q @ k.mT).relu() / L) @ v


@unnormalised
def products_over_their_sum(m, q, k, v):
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
    return (weights / weights.sum(-1, keepdim=True)) @ v


@unnormalised
def sparsemax(m, q, k, v):
    logits = q @ k.mT
    ordered = logits.sort(-1, descending=True).values
    total, ranks = ordered.cumsum(-1) - 1, torch.arange(1, L + 1)
    size = (ordered * ranks > total).sum(-1, keepdim=True)
    return (logits - total.gather(-1, size - 1) / size).clamp(min=0) @ v


@unnormalised
def gumbel(m, q, k, v):
    return F.gumbel_softmax(q @ k.mT, dim=-1) @ v


@unnormalised
def retention(m, q, k, v):
    distance = torch.arange(L)[:, None] - torch.arange(L)
    return (q @ k.mT * torch.where(distance >= 0, 0.9 ** distance.clamp(min=0), 0.0)) @ v


@unnormalised
def by_einsum(m, q, k, v):
    return torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).sigmoid(), v)


# Not attention by products alone, so that only a name tells that something was missed.
ONLY_BY_NAME = {}


def only_by_name(compute):
    ONLY_BY_NAME[compute.__name__] = compute
    return compute


@only_by_name
def no_values(m, q, k, v):
    return v + (q @ k.mT).softmax(-1).mean()


@only_by_name
def elementwise_values(m, q, k, v):
    return ((q @ k.mT).softmax(-1)[..., None] * v[:, :, None]).sum(-2)


@only_by_name
def additive(m, q, k, v):
    return torch.tanh(q[:, :, :, None] + k[:, :, None]).sum(-1).softmax(-1) @ v


@only_by_name
def linear(m, q, k, v):
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return q @ (k.mT @ v) / (q @ k.sum(2, keepdim=True).mT)


@only_by_name
def softmaxes_of_features(m, q, k, v):
    return q.softmax(-1) @ (k.softmax(-2).mT @ v)


@only_by_name
def cosines(m, q, k, v):
    return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT) @ v


@only_by_name
def recurrent_retention(m, q, k, v):
    state, out = torch.zeros(B, H, q.shape[-1], q.shape[-1]), []
    for place in range(L):
        state = 0.9 * state + k[:, :, place, :, None] * v[:, :, place, None]
        out.append(q[:, :, place, None] @ state)
    return torch.cat(out, 2)
