"""Output projections whose weight is tied, dequantises itself, or is held by processes, against float64."""

from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import transformers as hf
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from clearhead.capture import observe
from clearhead.capture.head_outputs.projection import OutputProjection
from clearhead.errors import CaptureError

from ..families import GROUPED, ids

EPS = torch.finfo(torch.float32).eps


class Quantised(Tensor):
    """A weight as torchao keeps it: codes and scales that say they are float32, and refuse all but a few operations."""

    @staticmethod
    def __new__(cls, whole: Tensor, refuses: bool = False) -> "Quantised":
        return Tensor._make_wrapper_subclass(cls, whole.shape, dtype=whole.dtype)

    def __init__(self, whole: Tensor, refuses: bool = False) -> None:
        self.scale, self.refuses = whole.detach().abs().amax(1, keepdim=True) / 127, refuses
        self.codes = (whole.detach() / self.scale).round().to(torch.int8)

    def dequantize(self) -> Tensor:
        if self.refuses:
            raise NotImplementedError
        return self.codes * self.scale

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            return nn.functional.linear(args[0], args[1].codes * args[1].scale, *args[2:])
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(f"{func} on codes")


def llama():
    torch.manual_seed(0)
    return hf.LlamaModel(hf.LlamaConfig(**GROUPED)).eval()


def compared(model, weight):
    """value_weighted and contributions of the last layer are those of this weight, in float64."""
    with torch.no_grad(), observe(model, values=True) as record:
        model(ids())
    name = list(record)[-1]
    A, heads = record[name], record[name].shape[1]
    parts = weight.double().mT.reshape(heads, -1, weight.shape[0])
    v = record.v(name).double().repeat_interleave(heads // record.v(name).shape[1], 1)
    norms = (A.to_dense().double()[..., None] * (v @ parts)[:, :, None]).norm(dim=-1)
    exact = record.z(name).double() @ parts
    bound = 64 * EPS * float(norms.max())
    torch.testing.assert_close(record.value_weighted(name).to_dense().double(), norms, rtol=0, atol=bound)
    bound = 64 * EPS * float(exact.abs().max())
    torch.testing.assert_close(record.contributions(name).to_dense().double(), exact, rtol=0, atol=bound)


@pytest.mark.parametrize("tie", ["weight of another layer", "module of another layer", "query's module"])
def test_tied(tie):
    model = llama()
    first, last = model.layers[0].self_attn, model.layers[-1].self_attn
    if tie == "weight of another layer":
        last.o_proj.weight = first.o_proj.weight
    elif tie == "module of another layer":
        last.o_proj = first.o_proj
    else:
        last.o_proj = last.q_proj
    compared(model, last.o_proj.weight.detach())


def test_a_weight_that_dequantises_itself():
    model = llama()
    o_proj = model.layers[-1].self_attn.o_proj
    o_proj.weight = nn.Parameter(Quantised(o_proj.weight), requires_grad=False)
    compared(model, o_proj.weight.dequantize())


def test_a_weight_that_does_not_is_refused_in_words():
    module = nn.Linear(6, 5)
    module.weight = nn.Parameter(Quantised(module.weight, refuses=True), requires_grad=False)
    with pytest.raises(CaptureError, match=r"keeps its weight as Quantised, .*Dequantise it"):
        OutputProjection(module, 2).weight(3)


@pytest.fixture
def mesh():
    if dist.is_initialized():
        pytest.skip("another test has a process group in this process")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_by_fsdp(mesh):
    model = llama()
    weight = model.layers[-1].self_attn.o_proj.weight.detach().clone()
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    compared(fully_shard(model, mesh=mesh), weight)


@pytest.mark.slow
def test_tensor_parallel(mesh):
    """Its projection's input is a DTensor too, which the observer must compare without disturbing the model."""
    model = llama()
    weight = model.layers[-1].self_attn.o_proj.weight.detach().clone()
    for layer in model.layers:
        plan = {f"{part}_proj": ColwiseParallel() for part in "qkv"} | {"o_proj": RowwiseParallel()}
        parallelize_module(layer.self_attn, mesh, plan)
    compared(model, weight)


@pytest.mark.parametrize(("local", "fits"), [((5, 6), True), ((3, 6), False), ((5, 3), False)])
def test_of_a_sharded_weight_the_part_of_these_heads_is_read_or_none(local, fits):
    """(5, 6): all of it, or this rank's heads of a wider one; the others lack outputs, or inputs."""
    part = torch.randn(local)
    weight = SimpleNamespace(
        shape=torch.Size((5, 12)), detach=lambda: SimpleNamespace(to_local=lambda: part), to_local=0
    )
    projection = OutputProjection(SimpleNamespace(weight=weight), 2)
    if fits:
        assert torch.equal(projection.weight(3), part.mT.reshape(2, 3, 5))
    else:
        with pytest.raises(CaptureError, match=r"sharded: this process holds .*full_tensor"):
            projection.weight(3)
