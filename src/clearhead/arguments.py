"""How public functions treat arguments that are not plain tensors: convert them, ask their class, or refuse them.

The memory of a tensor subclass may differ from the numbers it represents. Every public function therefore asks `kind`
before it reads an argument; for plain tensors that costs one type check.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, NoReturn, TypeVar, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clearhead.errors import DtypeError

F = TypeVar("F", bound=Callable[..., Any])
_OWN = (Tensor, torch.nn.Parameter)
_NO_TENSORS = frozenset({type(None), bool, int, float, str})
_ASKS_NOBODY = torch._C._disabled_torch_function_impl
_DEFAULT = Tensor.__torch_function__.__func__  # type: ignore[attr-defined]


class Kind(Enum):
    """How an argument is read."""

    PLAIN = "its numbers are in its memory, or it is not a tensor"
    OPERATORS = "a class that torch's operators know by __torch_dispatch__: fake, functional, a wrapper"
    BARE = "a subclass that was asked already and has no operators of its own: its memory counts"
    ASKED = "its class has a __torch_function__"
    NESTED = "tensors of different lengths in one"
    CAUSAL_BIAS = "a mask of torch.nn.attention.bias, whose memory holds nothing"
    ZERO = "zeros without memory, as derivatives are"
    REFUSED = "nothing here can read it"


# Classes whose memory is not what they stand for, by name, since importing them takes long: what to do instead.
_BY_NAME = {
    "torch.masked.maskedtensor.core.MaskedTensor": (
        "is a MaskedTensor, whose missing entries have no place in attention. "
        "Pass {name}.get_data(), and say in attn_mask which keys are missing."
    ),
    "torch.distributed.tensor.DTensor": (
        "is a DTensor, of which this process holds a part. Pass {name}.full_tensor(), or {name}.to_local() of query, "
        "key and value where the batch or the heads are sharded."
    ),
    "torch.nn.attention.bias.CausalBias": (
        "is a CausalBias, which stands for a mask and holds no numbers. Pass it as attn_mask."
    ),
}


def kind(value: Any) -> Kind:
    """Return how an argument is read.

    >>> kind(torch.ones(2)), kind(None), kind(torch.ones(2).to_sparse())
    (<Kind.PLAIN: ...>, <Kind.PLAIN: ...>, <Kind.REFUSED: ...>)
    """
    cls = type(value)
    if cls in _OWN:
        return _kind_by_layout(value)
    function = getattr(cls, "__torch_function__", None)
    if function is None:
        return Kind.PLAIN
    if not issubclass(cls, Tensor):
        return Kind.ASKED
    name = _known(cls)
    if name is not None:
        return Kind.CAUSAL_BIAS if name.endswith("CausalBias") else Kind.REFUSED
    asks = torch._C._is_torch_function_enabled() and function is not _ASKS_NOBODY
    with torch._C.DisableTorchFunctionSubclass():  # its class would be asked what `is_nested` is for it
        by_layout = _kind_by_layout(value)
    if by_layout is Kind.NESTED:
        return by_layout
    if asks:
        return Kind.ASKED
    if torch._C._dispatch_keys(value).has(torch._C.DispatchKey.Python):
        return Kind.OPERATORS
    return Kind.BARE if by_layout is Kind.PLAIN else by_layout


def are_plain(*values: Any, nested: bool = False) -> bool:
    """Return whether no argument has to be converted, asked or refused. The type alone decides most cases.

    Args:
        nested: whether nested tensors count as plain.
    """
    for value in values:
        cls = type(value)
        if cls in _NO_TENSORS:
            continue
        if cls in _OWN and not (value.is_nested or value.is_quantized or _is_zero(value)):
            if value.layout is not torch.strided:
                return False
        elif kind(value) not in (Kind.PLAIN, Kind.OPERATORS) and not (nested and kind(value) is Kind.NESTED):
            return False
    return True


def checked(
    *,
    nested: Iterable[str] = (),
    convert: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Callable[[F], F]:
    """Decorate a public function so that it is given plain tensors, or tensors that torch's operators know.

    Args:
        nested, convert: as Taking has them.
    """

    def decorate(function: F) -> F:
        take = Taking(function, nested=nested, convert=convert)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if torch.compiler.is_compiling() or (are_plain(*args) and are_plain(*options.values())):
                return function(*args, **options)
            return take(call, args, options)

        return cast(F, call)

    return decorate


class Taking:
    """How a function is called with arguments that are not plain tensors: they are converted, asked, or refused.

    Args:
        function: what to call in the end.
        nested: arguments that may be nested tensors.
        convert: arguments that may be a torch.nn.attention.bias mask -> what makes them one the function takes.
        twin: torch's function of the same meaning, which a class may know where it does not know ours. The function's
            first parameters are the twin's.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        nested: Iterable[str] = (),
        convert: Mapping[str, Callable[[Any], Any]] | None = None,
        twin: Callable[..., Any] | None = None,
    ) -> None:
        self._function, self._nested, self._convert, self._twin = function, frozenset(nested), convert or {}, twin
        self._signature = inspect.signature(function)

    def __call__(self, public: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Call the function.

        Args:
            public: the function as classes are asked about it.
        Raises:
            DtypeError: names the argument that cannot be read, and says what to pass instead.
        """
        bound = self._signature.bind(*args, **options)
        asked, bare = [], []
        for name, value in bound.arguments.items():
            how = kind(value)
            if how is Kind.NESTED and name in self._nested:
                continue
            if how is Kind.CAUSAL_BIAS and name in self._convert:
                bound.arguments[name] = self._convert[name](value)
            elif how in (Kind.REFUSED, Kind.CAUSAL_BIAS, Kind.NESTED):
                refuse(name, value)
            elif how is Kind.BARE:
                bare.append(value)
            elif how is Kind.ZERO:
                bound.arguments[name] = torch.zeros_like(value)
            elif how is Kind.ASKED:
                asked.append(value)
        if asked:
            answer = ask(public, asked, bound.args, bound.kwargs)
            if answer is NotImplemented:
                answer = self._ask_twin(asked, bound)
            return _none_knows(public, asked) if answer is NotImplemented else answer
        own = [value for value in bare if _has_own_answer(type(value))]
        answer = self._ask_twin(own, bound) if own else NotImplemented
        return self._run(*bound.args, **bound.kwargs) if answer is NotImplemented else answer

    def _run(self, *args: Any, **options: Any) -> Any:
        """Call the function with the memory of what was asked already."""
        return self._function(*map(_bare, args), **{name: _bare(value) for name, value in options.items()})

    def _ask_twin(self, values: list[Any], bound: inspect.BoundArguments) -> Any:
        """Ask classes about torch's function, where it can say the call; what they call it with, ours computes."""
        if self._twin is None or any(_differs(bound, name) for name in bound.kwargs):
            return NotImplemented
        with _Ours(self._twin, self._run):
            return ask(self._twin, values, bound.args, {})


class _Ours(TorchFunctionMode):
    """A mode that computes by our function wherever a class calls torch's."""

    def __init__(self, twin: Callable[..., Any], ours: Callable[..., Any]) -> None:
        super().__init__()
        self._twin, self._ours = twin, ours

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not self._twin:
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return self._ours(*args, **(kwargs or {}))


def ask(function: Callable[..., Any], values: list[Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Let the classes of some arguments say what a function is for them, as torch's own functions do.

    Not by torch.overrides.handle_torch_function: that asks the TorchFunctionModes too, which would then not see what
    runs inside.

    Returns:
        What the first class answers that does not say NotImplemented; else NotImplemented.
    """
    with torch._C._EnableTorchFunction():
        values = torch.overrides._get_overloaded_args(values)
    types = tuple(type(value) for value in values)
    for value in values:
        answer = value.__torch_function__(function, types, args, options)
        if answer is not NotImplemented:
            return answer
    return NotImplemented


def refuse_unreadable(**values: Any) -> None:
    """Raise an error if an argument, given by name, has no numbers in its memory.

    Raises:
        DtypeError: names the first of them, and says what to pass instead.
    """
    for name, value in values.items():
        if kind(value) in (Kind.REFUSED, Kind.CAUSAL_BIAS, Kind.NESTED):
            refuse(name, value)


def refuse(name: str, value: Tensor) -> NoReturn:
    """Raise an error that says why an argument cannot be read and what to pass instead."""
    known = _known(type(value))
    if known is not None:
        why = _BY_NAME[known].format(name=name)
    elif value.is_nested:
        why = f"is a nested tensor. Call torch.nested.to_padded_tensor({name}, 0.0), or {name}.unbind() for its parts."
    elif value.is_quantized:
        why = f"is quantized ({value.dtype}), and its memory holds steps of a scale. Call {name}.dequantize()."
    else:
        why = f"has layout {value.layout}, expected dense memory (torch.strided). Call {name}.to_dense()."
    raise DtypeError(f"{name} {why}")


def _none_knows(function: Callable[..., Any], values: list[Any]) -> NoReturn:
    names = " and ".join(sorted({type(value).__name__ for value in values}))
    raise DtypeError(
        f"{names} answered NotImplemented when asked by __torch_function__ for clearhead's {function.__qualname__}. "
        f"Implement it there, or pass plain tensors."
    )


def _differs(bound: inspect.BoundArguments, name: str) -> bool:
    """Return whether an option differs from its default."""
    return bound.arguments[name] is not bound.signature.parameters[name].default


def _has_own_answer(cls: type) -> bool:
    """Return whether a class's __torch_function__ does more than return results of the class."""
    function = cls.__torch_function__  # type: ignore[attr-defined]
    return function is not _ASKS_NOBODY and getattr(function, "__func__", function) is not _DEFAULT


def _bare(value: Any) -> Any:
    return value.as_subclass(Tensor) if kind(value) is Kind.BARE else value


def _kind_by_layout(value: Tensor) -> Kind:
    if value.is_nested:
        return Kind.NESTED
    if value.layout is not torch.strided or value.is_quantized:
        return Kind.REFUSED
    return Kind.ZERO if _is_zero(value) else Kind.PLAIN


def _is_zero(value: Tensor) -> bool:
    return not torch.compiler.is_compiling() and value._is_zerotensor()


@functools.cache
def _known(cls: type) -> str | None:
    """Which class of `_BY_NAME` it is or derives from. Some are re-exported from a private module of the same name."""
    for base in cls.__mro__:
        for name in _BY_NAME:
            module, _, own = name.rpartition(".")
            if base.__name__ == own and base.__module__.replace("._api", "") == module:
                return name
    return None
