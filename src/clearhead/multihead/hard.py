"""Hard attention: each query takes the value of one key. Three estimators train through that choice."""

import dataclasses
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from clearhead import kernels, spec
from clearhead.arguments import checked
from clearhead.errors import OptionError
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.prepare import prepare
from clearhead.masks import Mask
from clearhead.masks.kinds import from_causal_bias
from clearhead.multihead import dense_weights
from clearhead.multihead.fused import fused, matrix_of

Method = Literal["straight_through", "gumbel", "reinforce"]
ROWS = 128  # queries sampled at a time


@checked(convert={"attn_mask": from_causal_bias})
def hard_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Mask | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    method: Method = "straight_through",
    temperature: float = 1.0,
    return_index: bool = False,
    return_log_prob: bool = False,
) -> Any:
    """Compute hard attention: each query takes the value of exactly one key.

    Args:
        query, key, value, attn_mask, is_causal, scale, enable_gqa: as in `attention`.
        method: how the key is chosen, and how gradients reach query and key.
            "straight_through": the largest logit; gradients as if the weights were soft (Bengio et al. 2013).
            "gumbel": a sample by the Gumbel-max trick; gradients of the softmax of the noisy logits at `temperature`
            (Jang et al. 2017; Maddison et al. 2017).
            "reinforce": a sample from the softmax; no gradient by itself: add `reinforce(log_prob, reward)` to the
            loss (Williams 1992; Xu et al. 2015).
        temperature: positive, no unit; only for "gumbel". A low one has little bias and much variance.
        return_index: also return the chosen keys, (B, H, L) int64, -1 for a query that may attend nothing.
        return_log_prob: also return the log-probability of each choice under the softmax, (B, H, L), differentiable;
            0 for a query that may attend nothing.

    Returns:
        out (B, H, L, E), each row one row of value (0 for a query that may attend nothing); or a tuple
        (out[, index][, log_prob]). Choices are drawn with torch's generator.

    Memory: as `attention` for "straight_through" and "reinforce"; O(B·H·L·S) for the noise of "gumbel".

    Example: the values are -1, 1 and 0.2, and the output should be close to 0. Soft attention reaches 0 by mixing -1
    and 1, but its argmax is off by 1. Hard attention learns to choose 0.2.
        >>> values = torch.tensor([[-1.0], [1.0], [0.2]])
        >>> def train(step):
        ...     _ = torch.manual_seed(0)
        ...     logits = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
        ...     optimiser = torch.optim.Adam([logits], lr=0.1)
        ...     for _ in range(150):
        ...         optimiser.zero_grad()
        ...         step(logits.expand(64, 3)).backward()
        ...         optimiser.step()
        ...     return values[logits.argmax()].item()
        >>> import clearhead
        >>> keys = torch.eye(3)
        >>> soft = lambda q: clearhead.attention(q, keys, values, scale=1.0).square().mean()
        >>> abs(train(soft))
        1.0
        >>> def hard(q):
        ...     out, log_prob = hard_attention(
        ...         q, keys, values, scale=1.0, method="reinforce", return_log_prob=True
        ...     )
        ...     return reinforce(log_prob, reward=-out.detach().square()[:, 0])
        >>> round(train(hard), 2)
        0.2
    """
    if method not in get_args(Method):
        raise OptionError(f"method is {method!r}; expected one of {', '.join(get_args(Method))}.")
    temperature, scale = checks.number(temperature), checks.number(scale)
    if not temperature > 0:
        raise OptionError(f"temperature is {temperature}; expected a positive number.")
    kernels.refuse_tracing("hard_attention")
    checks.tensors(query, key, value)
    layout, problem = prepare(query, key, value, attn_mask, is_causal, scale, enable_gqa, dense=True)
    result: kernels.Result | None = None
    if method == "gumbel":
        out, index = _gumbel(problem, temperature)
    else:
        # The choice needs the lse of a soft pass, whose output is used only for straight-through gradients.
        detached = dataclasses.replace(problem, value=problem.value.detach())
        result = fused(detached)
        index = _largest(problem, result) if method == "straight_through" else _sampled(problem, result)
        out = _gather(problem, index)
        if method == "straight_through":
            out = out + (result.out - result.out.detach())
    if not (return_index or return_log_prob):
        return layout.outward(out)
    parts = [layout.outward(out)]
    if return_index:
        parts.append(layout.outward(index))
    if return_log_prob:
        result = fused(problem) if result is None else result
        parts.append(layout.outward(_log_prob(problem, index, result.lse)))
    return tuple(parts)


@checked()
def reinforce(log_prob: Tensor, reward: Tensor, baseline: Tensor | float | None = None) -> Tensor:
    """Return the REINFORCE loss, whose gradient estimates that of minus the expected reward (Williams 1992, eq. 4).

    Args:
        log_prob: log-probability of each choice, any shape; from `hard_attention(..., return_log_prob=True)`.
        reward: the reward of each choice, broadcastable to `log_prob`; no gradient flows through it.
        baseline: the expected reward, which lowers the variance and leaves the mean unchanged. Default: the mean of the
            other rewards (Kool et al. 2019), or 0 for a single one.
    Returns:
        A scalar to minimise.

    >>> log_prob = torch.tensor([-0.5, -1.0], requires_grad=True)
    >>> reinforce(log_prob, torch.tensor([1.0, 0.0])).backward()
    >>> log_prob.grad.tolist()
    [-0.5, 0.5]
    """
    reward = reward.detach().expand_as(log_prob)
    if baseline is None:
        count = reward.numel()
        baseline = (reward.sum() - reward) / (count - 1) if count > 1 else 0.0
    return -((reward - baseline) * log_prob).mean()


def _largest(problem: kernels.Problem, result: kernels.Result) -> Tensor:
    """Return the key with the largest logit, (B, H, L); -1 for an empty row."""
    keys = problem.key.shape[2]
    if keys == 0:
        return torch.full(result.lse.shape, -1, device=result.lse.device)
    with torch.no_grad():
        _, index = matrix_of(problem, result.lse.detach()).topk(1)
    return index[..., 0].masked_fill(result.lse == -torch.inf, -1)


def _sampled(problem: kernels.Problem, result: kernels.Result) -> Tensor:
    """Draw a key from the weights, one block of queries at a time: (B, H, L); -1 for an empty row."""
    empty = result.lse == -torch.inf
    if problem.key.shape[2] == 0:
        return torch.full(empty.shape, -1, device=empty.device)
    with torch.no_grad():
        matrix = matrix_of(problem, result.lse.detach())
        drawn = []
        for start in range(0, empty.shape[2], ROWS):
            block = matrix[:, :, start : start + ROWS].float()
            block[..., 0] += empty[:, :, start : start + ROWS]  # multinomial needs a positive sum; marked -1 below
            drawn.append(torch.multinomial(block.flatten(0, 2), 1).view(block.shape[:3]))
    return torch.cat(drawn, 2).masked_fill(empty, -1) if drawn else empty.long()


def _gumbel(problem: kernels.Problem, temperature: float) -> tuple[Tensor, Tensor]:
    """Return output and index of a sample by the Gumbel-max trick, hard in forward and soft in backward."""
    key, value = map(problem.per_query_head, (problem.key, problem.value))
    logits = dense_weights.logits(problem, key)
    if logits.shape[-1] == 0:
        return logits @ value, torch.full(logits.shape[:3], -1, device=logits.device)
    noisy = (logits - torch.empty_like(logits).exponential_().log()) / temperature
    soft = dense_weights.softmax(noisy)
    index = noisy.argmax(-1).masked_fill((logits == -torch.inf).all(-1), -1)
    chosen = torch.zeros_like(soft).scatter_(-1, index.clamp(min=0)[..., None], 1.0)
    chosen = chosen.masked_fill((index < 0)[..., None], 0)
    return (chosen + soft - soft.detach()) @ value, index


def _gather(problem: kernels.Problem, index: Tensor) -> Tensor:
    """Return the chosen values, (B, H, L, E); zeros where nothing was chosen."""
    value = problem.per_query_head(problem.value)
    if value.shape[2] == 0:
        return value.sum(2, keepdim=True).expand(*index.shape, value.shape[3])
    at = index.clamp(min=0)[..., None].expand(*index.shape, value.shape[3])
    return value.gather(2, at).masked_fill((index < 0)[..., None], 0)


def _log_prob(problem: kernels.Problem, index: Tensor, lse: Tensor) -> Tensor:
    """Return the logit of the chosen key minus lse, (B, H, L), differentiable through both."""
    key = problem.per_query_head(problem.key)
    if key.shape[2] == 0:
        return lse.masked_fill(lse == lse, 0.0)
    at = index.clamp(min=0)[..., None]
    chosen = key.gather(2, at.expand(*index.shape, key.shape[3]))
    batch, head, row = torch.meshgrid(*(torch.arange(n, device=index.device) for n in index.shape), indexing="ij")
    scaled = (problem.query * problem.attention.multiplier * chosen).sum(-1).to(lse.dtype)
    logit = spec.logits_at(problem.attention, scaled, batch, head, row, at[..., 0], problem.shape)
    unchosen = index < 0
    return torch.where(unchosen, 0.0, logit - lse.masked_fill(unchosen, 0.0))
