"""The ONNX `Attention` operator's own node tests, where the onnx package is installed."""

import math
import warnings
from importlib import import_module

import pytest
import torch

import clearhead
from clearhead import masks

onnx = pytest.importorskip("onnx", reason="onnx is not installed; its Attention node tests cannot run")


def cases():
    from onnx.backend.test.case import node

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # Its collector builds the cases of every operator, 14 s of it for pooling: import only this one's module.
        patch.setattr(node, "import_recursive", lambda package: import_module(f"{package.__name__}.attention"))
        actual = node.collect_testcases("Attention")
    return [case for case in actual if case.kind == "node" and "expanded" not in case.name]


def tensor(proto):
    array = onnx.numpy_helper.to_array(proto) if isinstance(proto, onnx.TensorProto) else proto
    return torch.tensor(array.astype("float32")).bfloat16() if array.dtype.name == "bfloat16" else torch.tensor(array)


def rule_of(options, past, lengths, length, keys):
    """Return causal, window and padding masks, aligned at the end of each batch entry's keys."""
    offset = past if lengths is None else lengths - length
    parts = [] if lengths is None else [masks.padding(lengths)]
    if options.get("is_causal"):
        parts.append(masks.causal(offset))
    if options.get("left_window_size", -1) >= 0:
        parts.append(~masks.causal(offset - options["left_window_size"] - 1))
    if options.get("right_window_size", -1) >= 0:
        parts.append(masks.causal(offset + options["right_window_size"]))
    return parts


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_node_is_computed(case):
    node = case.model.graph.node[0]
    options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    given, expected = case.data_sets[0]
    inputs = iter(given)
    values = [tensor(next(inputs)) if name else None for name in node.input] + [None] * (7 - len(node.input))
    q, k, v, mask, past_key, past_value, lengths = values
    flat = q.dim() == 3
    if flat:
        heads = (options["q_num_heads"], options["kv_num_heads"], options["kv_num_heads"])
        q, k, v = (x.unflatten(-1, (h, -1)).transpose(1, 2) for x, h in zip((q, k, v), heads, strict=True))
    past = 0 if past_key is None else past_key.shape[2]
    if past_key is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    length, keys = q.shape[2], k.shape[2]
    parts = rule_of(options, past, lengths, length, keys)
    if mask is not None:
        nothing = False if mask.dtype == torch.bool else -math.inf
        mask = torch.nn.functional.pad(torch.atleast_2d(mask), (0, keys - mask.shape[-1]), value=nothing)
        if mask.dtype == torch.bool:
            parts.append(masks.from_dense(mask))
            mask = None
    rule = None
    for part in parts:
        rule = part if rule is None else rule & part
    if mask is not None and rule is not None:
        mask, rule = mask.masked_fill(~rule.dense(length, keys), -math.inf), None
    softcap = options.get("softcap") or None
    out = clearhead.attention(
        q, k, v, mask if rule is None else rule, scale=options.get("scale"), softcap=softcap, enable_gqa=True
    )
    out = out.transpose(1, 2).flatten(-2) if flat else out
    tolerance = 1e-5 if out.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out, tensor(expected[0]), atol=tolerance, rtol=tolerance, check_dtype=False)
