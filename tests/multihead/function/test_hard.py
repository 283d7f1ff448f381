"""Hard attention: one key per query, and three estimators that train through the choice."""

import pytest
import torch

import clearhead
from clearhead.multihead import reinforce

B, H, L, S, D, E = 2, 4, 5, 7, 3, 2


def inputs(requires_grad=False):
    torch.manual_seed(0)
    return [torch.randn(shape, requires_grad=requires_grad) for shape in ((B, H, L, D), (B, 2, S, D), (B, 2, S, E))]


def weights(q, k, **options):
    _, matrix = clearhead.attention(q, k, k, enable_gqa=True, return_matrix=True, **options)
    return matrix.to_dense()


@pytest.mark.parametrize("method", ["straight_through", "gumbel", "reinforce"])
def test_each_row_is_one_value_that_the_mask_allows(method):
    q, k, v = inputs()
    mask = torch.rand(L, S) > 0.4
    mask[2] = False
    out, index, log_prob = clearhead.hard_attention(
        q, k, v, mask, enable_gqa=True, method=method, return_index=True, return_log_prob=True
    )
    assert index[:, :, 2].eq(-1).all()
    assert out[:, :, 2].eq(0).all()
    assert log_prob[:, :, 2].eq(0).all()
    rows = [0, 1, 3, 4]
    assert mask.expand(B, H, L, S).gather(3, index.clamp(min=0)[..., None])[:, :, rows].all()
    values = v.repeat_interleave(2, 1)
    torch.testing.assert_close(out[:, :, rows], values.gather(2, index[:, :, rows, None].expand(-1, -1, -1, E)))
    soft = weights(q, k, attn_mask=mask).gather(3, index.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(log_prob[:, :, rows], soft[:, :, rows].log())


def test_straight_through_takes_the_largest_logit_and_has_soft_gradients():
    q, k, v = inputs(True)
    out = clearhead.hard_attention(q, k, v, is_causal=True, enable_gqa=True)
    soft = torch.softmax(
        (q @ k.repeat_interleave(2, 1).mT / D**0.5).masked_fill(~torch.ones(L, S).tril().bool(), -torch.inf), -1
    )
    chosen = torch.nn.functional.one_hot(soft.argmax(-1), S).float()
    expected = (chosen + soft - soft.detach()) @ v.repeat_interleave(2, 1)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    ours = torch.autograd.grad(out, (q, k, v), upstream)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, (q, k, v), upstream))


@pytest.mark.parametrize("method", ["gumbel", "reinforce"])
def test_samples_follow_the_softmax(method):
    q, k, v = (t[:1, :1] for t in inputs())
    rows = 4000
    _, index = clearhead.hard_attention(q[:, :, :1].expand(-1, -1, rows, -1), k, v, method=method, return_index=True)
    counted = torch.bincount(index.flatten(), minlength=S) / rows
    assert (counted - weights(q[:, :, :1], k)[0, 0, 0]).abs().max() < 4 * (0.25 / rows) ** 0.5


def test_gumbel_gradients_are_those_of_torchs_gumbel_softmax():
    q, k, v = (t.detach()[:, :2].requires_grad_() for t in inputs())
    torch.manual_seed(3)
    out = clearhead.hard_attention(q, k, v, method="gumbel", temperature=0.7)
    torch.manual_seed(3)
    hard = torch.nn.functional.gumbel_softmax(q @ k.mT / D**0.5, tau=0.7, hard=True)
    torch.testing.assert_close(out, hard @ v)
    ours = torch.autograd.grad(out.square().sum(), (q, k, v))
    torch.testing.assert_close(ours, torch.autograd.grad((hard @ v).square().sum(), (q, k, v)))


def test_reinforce_estimates_the_gradient_of_the_expected_reward():
    torch.manual_seed(0)
    q, k = torch.randn(1, D, requires_grad=True), torch.randn(S, D)
    reward_of = torch.randn(S, 1)
    exact = torch.autograd.grad(-(torch.softmax(q @ k.mT / D**0.5, -1) @ reward_of).sum(), q)[0]
    rows = 20000
    out, log_prob = clearhead.hard_attention(q.expand(rows, D), k, reward_of, method="reinforce", return_log_prob=True)
    plain = torch.autograd.grad(reinforce(log_prob, out[:, 0], baseline=0.0), q, retain_graph=True)[0]
    centred = torch.autograd.grad(reinforce(log_prob, out[:, 0]), q)[0]
    torch.testing.assert_close(plain, exact, atol=0.02, rtol=0)
    torch.testing.assert_close(centred, exact, atol=0.02, rtol=0)


def test_no_keys_give_zeros_and_wrong_options_are_refused():
    q, k, v = inputs()
    for method in ("straight_through", "gumbel", "reinforce"):
        assert clearhead.hard_attention(q, k[:, :, :0], v[:, :, :0], enable_gqa=True, method=method).eq(0).all()
    with pytest.raises(clearhead.errors.OptionError, match="straight_through, gumbel, reinforce"):
        clearhead.hard_attention(q, k, v, method="softest")
    with pytest.raises(clearhead.errors.OptionError, match="positive"):
        clearhead.hard_attention(q, k, v, temperature=0.0)
