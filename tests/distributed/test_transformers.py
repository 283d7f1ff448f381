"""A Hugging Face model whose sequence is sharded gives each rank the rows that one process gives."""

import pytest
import torch

import clearhead
from clearhead import distributed
from clearhead.errors import OptionError

from .world import world

pytestmark = pytest.mark.stress
SMALL = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61,
    "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64,
}  # fmt: skip


def sharded_model(rank, size, name, options, placement):
    import transformers

    config = getattr(transformers, f"{name}Config")(**SMALL, **options)
    config._attn_implementation = "clearhead"
    clearhead.register_with_transformers()
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    ids = torch.arange(24)[None] % 61
    whole = model(ids, use_cache=False).logits
    weight = next(model.parameters())
    (expected,) = torch.autograd.grad(whole.square().sum(), weight)

    clearhead.register_with_transformers(distributed=torch.distributed.group.WORLD, placement=placement)
    own, places = (distributed.shard(part, -1, placement=placement) for part in (ids, torch.arange(24)[None]))
    out = model(own, position_ids=places, use_cache=False).logits
    (grad,) = torch.autograd.grad(out.square().sum(), weight)
    torch.distributed.all_reduce(grad)
    assert torch.allclose(distributed.gather(out, placement=placement), whole, atol=1e-5)
    assert torch.allclose(grad, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(OptionError, match="has padding, which a sharded sequence cannot have"):
        model(own, attention_mask=torch.tensor([[0] + [1] * (own.shape[1] - 1)]), use_cache=False)


@pytest.mark.parametrize("placement", ["contiguous", "zigzag"])
@pytest.mark.parametrize(("name", "options"), [("Llama", {}), ("Mistral", {"sliding_window": 5})])
def test_a_model_whose_sequence_is_sharded(name, options, placement):
    pytest.importorskip("transformers", reason="the models extra is not installed")
    world(2, sharded_model, name, options, placement)
