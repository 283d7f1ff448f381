"""The module in inference, where our kernels compute projections and weights: torch's numbers, and never stale ones."""

import pytest
import torch

import clearhead
from clearhead import kernels

B, L, S, E, H = 2, 11, 7, 12, 3


def pair(**options):
    torch.manual_seed(0)
    stock = torch.nn.MultiheadAttention(E, H, **options).eval()
    ours = clearhead.MultiheadAttention(E, H, **options).eval()
    ours.load_state_dict(stock.state_dict())
    return ours, stock


def inputs(batch_first, key=E, value=E, dtype=torch.float32):
    make = torch.Generator().manual_seed(1)
    shapes = ((B, L, E), (B, S, key), (B, S, value))
    tensors = [torch.randn(shape, generator=make).to(dtype) for shape in shapes]
    return tensors if batch_first else [t.transpose(0, 1).contiguous() for t in tensors]


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kdim": 10, "vdim": 14}, {"add_bias_kv": True, "add_zero_attn": True}], ids=str
)
@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_inference_equals_torchs(options, batch_first):
    ours, stock = pair(batch_first=batch_first, **options)
    tensors = inputs(batch_first, options.get("kdim", E), options.get("vdim", E))
    padding = torch.zeros(B, S, dtype=torch.bool)
    padding[1, 4:] = True
    for average in (True, False):
        got = ours(*tensors, key_padding_mask=padding, average_attn_weights=average)
        expected = stock(*tensors, key_padding_mask=padding, average_attn_weights=average)
        same(got, expected)
    same(ours(*tensors, need_weights=False)[0], stock(*tensors, need_weights=False)[0])
    query = tensors[0]
    if "kdim" not in options:
        same(ours(query, query, query), stock(query, query, query))
        same(ours(query, tensors[1], tensors[1]), stock(query, tensors[1], tensors[1]))


@torch.no_grad()
def test_inference_equals_training_with_grouped_heads_and_rotary():
    torch.manual_seed(0)
    layer = clearhead.MultiheadAttention(E, H, batch_first=True, num_kv_heads=1, rotary=True).eval()
    x = inputs(True)[0]
    with torch.enable_grad():
        expected = layer(x, x, x)
    same(layer(x, x, x), tuple(part.detach() for part in expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_16_bit_results_are_as_accurate_as_torchs(dtype):
    """Rounded where torch rounds: after each projection, the attention and the weights."""
    ours, stock = (layer.to(dtype) for layer in pair(batch_first=True))
    exact = pair(batch_first=True)[1].double()
    exact.load_state_dict(stock.state_dict())
    query, key, value = inputs(True, dtype=dtype)
    truth = exact(query.double(), key.double(), value.double())
    for mine, theirs, right in zip(ours(query, key, value), stock(query, key, value), truth, strict=True):
        floor = torch.finfo(dtype).eps * right.abs().max().item()
        assert (mine.double() - right).abs().max() <= 1.5 * (theirs.double() - right).abs().max() + floor


def swap_data(layer):
    layer.in_proj_weight.data = layer.in_proj_weight.data * 0.5 + 1
    layer.out_proj.weight.data = layer.out_proj.weight.data * 0.5 + 1


def change_in_place(layer):
    layer.in_proj_weight.mul_(0.5).add_(1)
    layer.out_proj.weight.mul_(0.5).add_(1)


def load(layer):
    layer.load_state_dict({name: tensor * 0.5 + 1 for name, tensor in layer.state_dict().items()})


def through_numpy(layer):
    layer.in_proj_weight.detach().numpy()[:] += 1


def take_a_step(layer):
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@pytest.mark.parametrize("change", [swap_data, change_in_place, load, through_numpy, take_a_step])
@torch.no_grad()
def test_weights_that_change_are_never_stale(change):
    ours, stock = pair(batch_first=True)
    x = inputs(True)[0]
    before = ours(x, x, x)[0]
    change(ours)
    stock.load_state_dict(ours.state_dict())
    same(ours(x, x, x), stock(x, x, x))
    assert not torch.allclose(ours(x, x, x)[0], before)


@torch.no_grad()
def test_a_hook_on_the_output_projection_or_another_module_is_used():
    ours, _ = pair(batch_first=True)
    x = inputs(True)[0]
    plain = ours(x, x, x, need_weights=False)[0]
    handle = ours.out_proj.register_forward_hook(lambda module, args, output: output + 1)
    same(ours(x, x, x, need_weights=False)[0], plain + 1)
    handle.remove()

    class Doubled(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    other = Doubled(E, E)
    other.load_state_dict(ours.out_proj.state_dict())
    ours.out_proj = other
    same(ours(x, x, x, need_weights=False)[0], 2 * plain)


def test_another_forward_of_the_output_projection_is_used():
    """Libraries that place layers on devices, or add adapters, replace `forward` by a function."""
    ours, _ = pair(batch_first=True)
    x = inputs(True)[0]
    plain, forward = ours(x, x, x, need_weights=False)[0], ours.out_proj.forward
    ours.out_proj.forward = lambda y: 2 * forward(y)
    same(ours(x, x, x, need_weights=False)[0], 2 * plain)


@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook", "everywhere"])
def test_backward_hooks_and_global_hooks_run_for_the_output_projection(kind):
    ours, _ = pair(batch_first=True)
    seen = []

    def hook(module, *_):
        seen.append(module)

    everywhere = torch.nn.modules.module.register_module_forward_hook
    handle = everywhere(hook) if kind == "everywhere" else getattr(ours.out_proj, kind)(hook)
    x = inputs(True)[0]
    ours(x, x, x, need_weights=False)[0].sum().backward()
    handle.remove()
    assert ours.out_proj in seen


@pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")
@torch.no_grad()
def test_a_torch_function_mode_changes_no_bit():
    """An observed run must compute the same numbers as an unobserved one."""

    class Watching(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    ours, _ = pair(batch_first=True)
    x = inputs(True)[0]
    plain = ours(x, x, x)
    with Watching():
        watched = ours(x, x, x)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))


@pytest.mark.parametrize(
    "rule",
    [
        clearhead.masks.sliding_window(3),
        clearhead.masks.causal() & clearhead.masks.sliding_window(5),
        clearhead.masks.causal(offset=4),
    ],
    ids=repr,
)
@pytest.mark.parametrize("learning", [False, True])
def test_a_band_stays_a_band_with_dense_weights_or_a_matrix(rule, learning):
    ours, stock = pair(batch_first=True)
    query, key, value = inputs(True)
    with torch.set_grad_enabled(learning):
        out, weights = ours(query, key, value, attn_mask=rule)
        same_out, matrix = ours(query, key, value, attn_mask=rule, weights="matrix")
        dense = ~rule.dense(L, S)[0, 0]
        expected, stocks = stock(query, key, value, attn_mask=dense)
    rows = ~dense.all(-1)  # torch gives NaN in a row that may attend nothing
    same(out[:, rows], expected[:, rows])
    same(weights[:, rows], stocks[:, rows])
    same(out, same_out)
    same(matrix.to_dense().mean(1), weights)
    assert matrix._logits.attention.allow is None  # no L×S mask was allocated
