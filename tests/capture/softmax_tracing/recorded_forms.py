"""A module whose forward is any function of q, k and v, and forms of attention that are recorded."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

B, H, L, D = 2, 3, 5, 7
E = H * D
CAUSAL = torch.ones(L, L).tril()
ALONE = torch.ones(L, L).index_fill(0, torch.tensor([2]), 0.0)  # query 2 may attend nothing


class Own(nn.Module):
    """A module whose whole forward is a function of (self, q, k, v), each (B, H, L, D); `keep` notes its weights."""

    def __init__(self, compute) -> None:
        super().__init__()
        self.compute, self.used = compute, None
        self.qkv = nn.Linear(E, 3 * E)
        self.mix, self.other, self.place = nn.Linear(H, H), nn.Linear(H, H), nn.Parameter(torch.randn(L, L, D))
        self.norm, self.router, self.softmax = nn.LayerNorm(H), nn.Linear(E, 2), nn.Softmax(dim=3)

    def keep(self, weights: Tensor) -> Tensor:
        self.used = weights.detach().clone()
        return weights

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(B, L, 3, H, D).permute(2, 0, 3, 1, 4)
        return self.compute(self, q, k, v)


class OwnAttention(Own):
    """The same, by a name that says so."""


class HeadsAttention(OwnAttention):
    num_heads = H


RECORDED = {}


def recorded(compute):
    RECORDED[compute.__name__] = compute
    return compute


def heads_mixed(layer: nn.Module, table: Tensor) -> Tensor:
    return layer(table.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@recorded
def scale_on_queries_and_a_softmax_module(m, q, k, v):
    return m.keep(m.softmax((q * 0.4) @ k.transpose(2, 3))) @ v


@recorded
def einsum_of_a_list(m, q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    energy = torch.einsum("nqhd,nkhd->nhqk", [q, k]).masked_fill(CAUSAL == 0, float("-1e20"))
    return torch.einsum("nhql,nlhd->nqhd", [m.keep(torch.softmax(energy / E**0.5, dim=3)), v])


@recorded
def einsum_with_dots(m, q, k, v):
    return torch.einsum("... i j, ... j d", m.keep(torch.einsum("...id,...jd->...ij", q, k).softmax(-1)), v)


@recorded
def einsum_by_numbers(m, q, k, v):
    weights = torch.einsum(q, [0, 1, 2, 3], k, [0, 1, 4, 3], [0, 1, 2, 4]).softmax(-1)
    return torch.einsum(m.keep(weights), [0, 1, 2, 4], v, [0, 1, 4, 3], [0, 1, 2, 3])


@recorded
def einsum_of_any_axes(m, q, k, v):
    q, k, v = (t.permute(2, 0, 1, 3) for t in (q, k, v))
    weights = torch.einsum("ibnd,jbnd->ijbn", q, k).softmax(1)
    m.keep(weights.permute(2, 3, 0, 1))
    return torch.einsum("ijbn,jbnd->ibnd", weights, v)


@recorded
def heads_between_queries_and_keys(m, q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    weights = torch.einsum("bihd,bjhd->bihj", q, k).softmax(-1)
    m.keep(weights.transpose(1, 2))
    return torch.einsum("bihj,bjhd->bihd", weights, v)


@recorded
def two_axes_by_tensordot(m, q, k, v):
    weights = torch.tensordot(q[0, 0], k[0, 0], dims=([1], [1])).softmax(-1)
    m.keep(weights[None, None])
    return torch.tensordot(weights, v[0, 0], dims=1)


@recorded
def keys_times_queries(m, q, k, v):
    weights = (k @ q.mT).softmax(-2)
    m.keep(weights.mT)
    return weights.mT @ v


@recorded
def values_first(m, q, k, v):
    return (v.mT @ m.keep((q @ k.mT).softmax(-1)).mT).mT


@recorded
def half_precision_with_a_float32_softmax(m, q, k, v):
    q, k, v = (t.bfloat16() for t in (q, k, v))
    weights = torch.softmax(q @ k.mT, -1, dtype=torch.float32).bfloat16()
    m.keep(weights.float())
    return weights @ v


@recorded
def exponentials_over_their_sum(m, q, k, v):
    logits = q @ k.mT
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@recorded
def exponentials_in_place(m, q, k, v):
    logits = (q @ k.mT).masked_fill(CAUSAL == 0, -torch.inf).detach()
    logits.exp_()
    logits /= logits.sum(-1, keepdim=True)
    return m.keep(logits) @ v


@recorded
def exponential_of_a_log_softmax(m, q, k, v):
    return m.keep(F.log_softmax(q @ k.mT, -1).exp()) @ v


@recorded
def mask_after_softmax_normalised_again(m, q, k, v):
    weights = (q @ k.mT).softmax(-1) * CAUSAL
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@recorded
def largest_weights_normalised_again(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    top, place = weights.topk(2, -1)
    weights = torch.zeros_like(weights).scatter(-1, place, top)
    return m.keep(F.normalize(weights, p=1, dim=-1)) @ v


@recorded
def heads_mixed_before_the_softmax(m, q, k, v):
    return m.keep(heads_mixed(m.mix, q @ k.mT).softmax(-1)) @ v


@recorded
def dropout_outside_training(m, q, k, v):
    return m.keep(F.dropout((q @ k.mT).softmax(-1), 0.5, training=False)) @ v


@recorded
def a_router_beside(m, q, k, v):
    gate = m.router(v.transpose(1, 2).flatten(2)).softmax(-1)
    return (m.keep((q @ k.mT).softmax(-1)) @ v).transpose(1, 2).flatten(2) * gate[..., :1]


@recorded
def values_changed_and_gated(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1)) @ (v.relu() * 2) * q.sigmoid()


@recorded
def one_head_after_the_other(m, q, k, v):
    weights = m.keep((q @ k.mT).softmax(-1))
    return torch.cat([weights[:, head] @ v[:, head] for head in range(H)], -1)


@recorded
def weights_used_twice(m, q, k, v):
    weights = m.keep((q @ k.mT).softmax(-1))
    return weights @ v + torch.einsum("bhij,ijd->bhid", weights, m.place)


@recorded
def nothing_to_attend_is_zero(m, q, k, v):
    return m.keep((q @ k.mT).masked_fill(ALONE == 0, -torch.inf).softmax(-1).nan_to_num()) @ v


@recorded
def nothing_to_attend_is_zeroed_later(m, q, k, v):
    weights = (q @ k.mT).masked_fill(ALONE == 0, torch.finfo().min).softmax(-1)
    return m.keep(weights.masked_fill(ALONE == 0, 0.0)) @ v


@recorded
def one_key_head_by_matmul(m, q, k, v):
    return m.keep((q @ k[:, :1].mT).softmax(-1)) @ v[:, :1]


@recorded
def one_key_head_by_einsum(m, q, k, v):
    return torch.einsum("bhij,bjd->bhid", m.keep(torch.einsum("bhid,bjd->bhij", q, k[:, 0]).softmax(-1)), v[:, 0])


@recorded
def positions_by_another_product(m, q, k, v):
    return m.keep((q @ k.mT + torch.einsum("bhid,ijd->bhij", q, m.place)).softmax(-1)) @ v


@recorded
def capped_logits(m, q, k, v):
    return m.keep((torch.tanh(q @ k.mT / 2) * 2).softmax(-1)) @ v


@recorded
def einsum_over_heads_too(m, q, k, v):
    values = torch.einsum("bhjd,hde->bhje", v, m.qkv.weight[:E].view(H, D, E))
    return torch.einsum("bhij,bhje->bie", m.keep((q @ k.mT).softmax(-1)), values)


@recorded
def einsum_of_three(m, q, k, v):
    weights = m.keep((q @ k.mT).softmax(-1))
    return torch.einsum("bhij,bhjd,hde->bie", weights, v, m.qkv.weight[:E].view(H, D, E))


@recorded
def product_from_the_right(m, q, k, v):
    return v.__rmatmul__(m.keep(k.mT.__rmatmul__(q).softmax(-1)))


@recorded
def complex_queries_and_keys(m, q, k, v):
    q, k = (torch.view_as_complex(t[..., :6].unflatten(-1, (3, 2)).contiguous()) for t in (q, k))
    return m.keep((q @ k.conj().mT).real.softmax(-1)) @ v


@recorded
def absolute_values_of_complex_products(m, q, k, v):
    return m.keep((torch.complex(q, k) @ torch.complex(k, v).mH).abs().softmax(-1)) @ v


def merged(t: Tensor) -> Tensor:
    """(B, H, L, D) with batch and heads as one axis."""
    return t.reshape(B * H, L, -1)


@recorded
def baddbmm_with_a_bias(m, q, k, v):
    bias = m.place[..., 0].expand(B * H, L, L)
    weights = torch.baddbmm(bias, merged(q), merged(k).mT, beta=1, alpha=0.3).softmax(-1)
    m.keep(weights.view(B, H, L, L))
    return torch.bmm(weights, merged(v)).view(B, H, L, D)


@recorded
def values_added_to_a_residual_by_baddbmm(m, q, k, v):
    weights = torch.bmm(merged(q), merged(k).mT).softmax(-1)
    m.keep(weights.view(B, H, L, L))
    return torch.baddbmm(merged(q), weights, merged(v)).view(B, H, L, D)


@recorded
def alibi_from_a_table(m, q, k, v):
    distance = (torch.arange(L)[:, None] - torch.arange(L)).abs()
    return m.keep((q @ k.mT - torch.tensor([0.5, 0.25, 0.125]).view(H, 1, 1) * distance).softmax(-1)) @ v


@recorded
def cosines_at_a_temperature_of_each_head(m, q, k, v):
    cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    return m.keep((cosines * m.mix.weight[:, 0].exp().view(H, 1, 1)).softmax(-1)) @ v


@recorded
def dropout_of_the_values(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1)) @ F.dropout(v, 0.5, training=True)


@recorded
def signature_of_memory_efficient_attention(m, q, k, v):
    def memory_efficient_attention(query, key, value, attn_bias=None, p=0.0):
        query, key, value = (t.transpose(1, 2) for t in (query, key, value))
        logits = (query * D**-0.5) @ key.transpose(-2, -1)
        weights = (logits if attn_bias is None else logits + attn_bias).softmax(-1)
        return (m.keep(F.dropout(weights, p)) @ value).transpose(1, 2)

    return memory_efficient_attention(*(t.transpose(1, 2) for t in (q, k, v)), attn_bias=m.place[..., 0])


@recorded
def low_rank_keys_and_values(m, q, k, v):
    """DeepSeek's, keys made again from a latent, and a part for positions that the heads share."""
    x, (up_k, up_v) = q.transpose(1, 2).flatten(2), m.qkv.weight[: 2 * E, :4].view(2, H, D, 4)
    latent = x @ m.qkv.weight[:4].T
    keys, values = (torch.einsum("blr,hdr->bhld", latent, up) for up in (up_k, up_v))
    logits = q @ keys.mT + torch.einsum("bhid,bjd->bhij", q[..., :2], x[..., :2])
    return m.keep((0.3 * logits).softmax(-1)) @ values


@recorded
def low_rank_keys_absorbed_into_the_query(m, q, k, v):
    """The same without making keys: queries meet the latent itself, which is the values too."""
    x, (up_k, up_v) = q.transpose(1, 2).flatten(2), m.qkv.weight[: 2 * E, :4].view(2, H, D, 4)
    latent = x @ m.qkv.weight[:4].T
    logits = torch.einsum("bhir,bjr->bhij", torch.einsum("bhid,hdr->bhir", q, up_k), latent)
    weights = m.keep((0.3 * logits + torch.einsum("bhid,bjd->bhij", q[..., :2], x[..., :2])).softmax(-1))
    return torch.einsum("bhir,hdr->bhid", torch.einsum("bhij,bjr->bhir", weights, latent), up_v)


@recorded
def low_rank_keys_absorbed_and_queries_before_heads(m, q, k, v):
    """The same in DeepSeek's own code: the heads follow the queries, and only the einsum's weights have heads."""
    x, (up_k, up_v) = q.transpose(1, 2).flatten(2), m.qkv.weight[: 2 * E, :4].view(2, H, D, 4)
    latent = x @ m.qkv.weight[:4].T
    asked = torch.einsum("bihd,hdr->bihr", q.transpose(1, 2), up_k)
    weights = torch.einsum("bihr,bjr->bihj", asked, latent).mul(0.3).softmax(-1)
    m.keep(weights.transpose(1, 2))
    return torch.einsum("bihr,hdr->bhid", torch.einsum("bihj,bjr->bihr", weights, latent), up_v)


@recorded
def several_learned_sinks(m, q, k, v):
    sinks = m.place[:2, 0].expand(B, H, 2, D)
    k, v = (torch.cat([sinks, t], 2) for t in (k, v))
    return m.keep((q @ k.mT).softmax(-1)) @ v


@recorded
def keys_kept_from_another_pass(m, q, k, v):
    m.cache = getattr(m, "cache", (2 * k.detach(), v.detach()))
    return m.keep((q @ m.cache[0].mT).softmax(-1)) @ m.cache[1]


@recorded
def forgetting(m, q, k, v):
    """The Forgetting Transformer: a decay of each query, as a bias."""
    gates = F.logsigmoid(q.sum(-1)).cumsum(-1)
    logits = q @ k.mT + gates[..., :, None] - gates[..., None, :]
    return m.keep(logits.masked_fill(CAUSAL == 0, -torch.inf).softmax(-1)) @ v


@recorded
def logits_convolved(m, q, k, v):
    """Multi-token attention: neighbouring logits of a head are mixed before the softmax."""
    kernel = m.place[:3, :3, 0].expand(H, 1, 3, 3)
    logits = F.conv2d((q @ k.mT).masked_fill(CAUSAL == 0, 0.0), kernel, padding=1, groups=H)
    return m.keep(logits.masked_fill(CAUSAL == 0, -torch.inf).softmax(-1)) @ v
