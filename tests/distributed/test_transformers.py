"""A Hugging Face model with a sharded sequence gives each rank its rows of one process's output."""

import pytest
import torch

import clearhead
from clearhead import distributed
from clearhead.errors import OptionError, RanksError

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
    with pytest.raises(OptionError, match="has padding, which is not supported for a sharded sequence"):
        model(own, attention_mask=torch.tensor([[0] + [1] * (own.shape[1] - 1)]), use_cache=False)
    with pytest.raises(RanksError if rank else OptionError, match="rank 0 refused" if rank else "has padding"):
        model(own, attention_mask=torch.full(own.shape, rank), position_ids=places, use_cache=False)
    with pytest.raises(RanksError if rank else OptionError, match="rank 0 refused" if rank else "no rank has"):
        model(own, position_ids=places, use_cache=False, output_attentions=rank == 0)
    restarting = distributed.shard(torch.arange(24)[None] % 7, -1, placement=placement)
    for wrong in ({}, {"position_ids": restarting}, {"position_ids": places + 1}):
        with pytest.raises(OptionError, match=r"rank \d calls the model with other position_ids than placement="):
            model(own, use_cache=False, **wrong)
    cache = model(own, position_ids=places, use_cache=True).past_key_values
    with pytest.raises(OptionError, match=r"a KV cache, which is not\s+supported if the sequence is sharded"):
        model(own[:, :1], position_ids=torch.tensor([[24 + rank]]), past_key_values=cache)
    with pytest.raises(OptionError, match="position_ids"):
        model.generate(own, max_new_tokens=2)


@pytest.mark.parametrize("placement", ["contiguous", "zigzag"])
@pytest.mark.parametrize(("name", "options"), [("Llama", {}), ("Mistral", {"sliding_window": 5})])
def test_a_model_whose_sequence_is_sharded(name, options, placement):
    pytest.importorskip("transformers", reason="the models extra is not installed")
    world(2, sharded_model, name, options, placement)


def attends_in_chunks(rank, size):
    import transformers

    config = transformers.Llama4TextConfig(
        **SMALL, attention_chunk_size=5, num_local_experts=2, intermediate_size_mlp=16
    )
    config._attn_implementation = "clearhead"
    clearhead.register_with_transformers(distributed=torch.distributed.group.WORLD)
    model = transformers.Llama4ForCausalLM(config).eval()
    with pytest.raises(OptionError, match="this model attends in chunks of 5 tokens"):
        model(torch.arange(12)[None], position_ids=12 * rank + torch.arange(12)[None])


def test_a_model_that_attends_in_chunks_is_refused():
    pytest.importorskip("transformers", reason="the models extra is not installed")
    world(2, attends_in_chunks)


def sharded_parameters(rank, size, mesh_of):
    """With parameters sharded by FSDP2 over the same ranks, gradients equal those of one process."""
    import transformers
    from torch.distributed.fsdp import fully_shard

    mesh = mesh_of(size)
    config = transformers.LlamaConfig(**SMALL)
    config._attn_implementation = "clearhead"
    clearhead.register_with_transformers()
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    ids, places = torch.arange(24)[None] % 61, torch.arange(24)[None]
    model(ids, use_cache=False).logits.square().mean().backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()

    clearhead.register_with_transformers(distributed=mesh, placement="zigzag")
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    own = distributed.shard(ids, -1, mesh=mesh, placement="zigzag")
    at = distributed.shard(places, -1, mesh=mesh, placement="zigzag")
    model(own, position_ids=at, use_cache=False).logits.square().mean().backward()
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad.full_tensor(), expected[name], atol=1e-6, rtol=1e-4), name


def one_axis(size):
    return torch.distributed.device_mesh.init_device_mesh("cpu", (size,))


def context_axis(size):
    """Return the axis "cp" of a mesh that also has a data-parallel axis, as torch's context parallelism uses it."""
    return torch.distributed.device_mesh.init_device_mesh("cpu", (1, size), mesh_dim_names=("dp", "cp"))["cp"]


@pytest.mark.parametrize("mesh_of", [one_axis, context_axis])
def test_parameters_and_sequence_are_both_sharded(mesh_of):
    pytest.importorskip("transformers", reason="the models extra is not installed")
    world(2, sharded_parameters, mesh_of)
