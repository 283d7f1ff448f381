"""Arguments that are not plain tensors: convert them, dispatch to their class (`__torch_function__`), or refuse them.

The memory of a tensor subclass may differ from the numbers it represents. Every public function therefore calls `kind`
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
_NO_DISPATCH = torch._C._disabled_torch_function_impl
_DEFAULT = Tensor.__torch_function__.__func__  # type: ignore[attr-defined]


class Kind(Enum):
    """How the numbers of an argument are read."""

    PLAIN = "its memory holds its numbers, or it is not a tensor"
    OPERATORS = "a class with a __torch_dispatch__, which torch's operators call: fake, functional, a wrapper"
    BARE = "a subclass whose __torch_function__ is disabled or has run, without operators of its own: its memory counts"
    OVERRIDES = "its class has a __torch_function__"
    NESTED = "tensors of different lengths in one"
    CAUSAL_BIAS = "a mask of torch.nn.attention.bias, whose memory is unused"
    ZERO = "a zero tensor without memory, as some derivatives are"
    REFUSED = "it cannot be read"


# Classes whose memory does not hold their numbers -> why, and what to pass. By name, because importing them is slow.
_BY_NAME = {
    "torch.masked.maskedtensor.core.MaskedTensor": (
        "is a MaskedTensor, and attention cannot read its missing entries. "
        "Pass {name}.get_data(), and mask the missing keys with attn_mask."
    ),
    "torch.distributed.tensor.DTensor": (
        "is a DTensor, of which this process holds a part. Pass {name}.full_tensor(), or {name}.to_local() of query, "
        "key and value if the batch or the heads are sharded."
    ),
    "torch.nn.attention.bias.CausalBias": (
        "is a CausalBias, which describes a mask and holds no numbers. Pass it as attn_mask."
    ),
}


def kind(value: Any) -> Kind:
    """Return how the numbers of an argument are read.

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
        return Kind.OVERRIDES
    name = _unreadable_class(cls)
    if name is not None:
        return Kind.CAUSAL_BIAS if name.endswith("CausalBias") else Kind.REFUSED
    overrides = torch._C._is_torch_function_enabled() and function is not _NO_DISPATCH
    with torch._C.DisableTorchFunctionSubclass():  # else `is_nested` would call its __torch_function__
        by_layout = _kind_by_layout(value)
    if by_layout is Kind.NESTED:
        return by_layout
    if overrides:
        return Kind.OVERRIDES
    if torch._C._dispatch_keys(value).has(torch._C.DispatchKey.Python):
        return Kind.OPERATORS
    return Kind.BARE if by_layout is Kind.PLAIN else by_layout


def are_plain(*values: Any, nested: bool = False) -> bool:
    """Return whether no argument has to be converted, dispatched or refused. The type alone decides most cases.

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
    """Decorate a public function so that it receives only plain tensors, or tensors that torch's operators accept.

    Args:
        nested, convert: as in `ArgumentHandler`.
    """

    def decorate(function: F) -> F:
        handle = ArgumentHandler(function, nested=nested, convert=convert)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            if torch.compiler.is_compiling() or (are_plain(*args) and are_plain(*options.values())):
                return function(*args, **options)
            return handle(call, args, options)

        return cast(F, call)

    return decorate


class ArgumentHandler:
    """Calls a function whose arguments are not all plain tensors: converts them, dispatches to their class, or refuses.

    Args:
        function: the function to call with the converted arguments.
        nested: names of arguments that may be nested tensors.
        convert: name of an argument that may be a torch.nn.attention.bias mask -> a function that converts the mask.
        twin: torch's equivalent function. A class that does not implement `function` may implement the twin. The
            parameters of `function` begin with the twin's.
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
            public: the function that is passed to `__torch_function__`.
        Raises:
            DtypeError: names the argument that cannot be read, and says what to pass instead.
        """
        bound = self._signature.bind(*args, **options)
        overriding, bare = [], []
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
            elif how is Kind.OVERRIDES:
                overriding.append(value)
        if overriding:
            answer = call_torch_function(public, overriding, bound.args, bound.kwargs)
            if answer is NotImplemented:
                answer = self._dispatch_twin(overriding, bound)
            return _raise_not_implemented(public, overriding) if answer is NotImplemented else answer
        own = [value for value in bare if _customizes_torch_function(type(value))]
        answer = self._dispatch_twin(own, bound) if own else NotImplemented
        return self._run(*bound.args, **bound.kwargs) if answer is NotImplemented else answer

    def _run(self, *args: Any, **options: Any) -> Any:
        """Call the function with the memory of subclasses that have already been dispatched."""
        return self._function(*map(_bare, args), **{name: _bare(value) for name, value in options.items()})

    def _dispatch_twin(self, values: list[Any], bound: inspect.BoundArguments) -> Any:
        """Dispatch the call as torch's function, if it can express it; where a class calls that one, ours runs."""
        if self._twin is None or any(_differs(bound, name) for name in bound.kwargs):
            return NotImplemented
        with _RunOurs(self._twin, self._run):
            return call_torch_function(self._twin, values, bound.args, {})


class _RunOurs(TorchFunctionMode):
    """A mode that runs our function wherever a class calls torch's."""

    def __init__(self, twin: Callable[..., Any], ours: Callable[..., Any]) -> None:
        super().__init__()
        self._twin, self._ours = twin, ours

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not self._twin:
            return func(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return self._ours(*args, **(kwargs or {}))


def call_torch_function(
    function: Callable[..., Any], values: list[Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> Any:
    """Dispatch a call to the `__torch_function__` of some arguments, as torch's own functions do.

    torch.overrides.handle_torch_function is not used, because it also calls the TorchFunctionModes, which would then
    not see what runs inside.

    Returns:
        The first result that is not NotImplemented; else NotImplemented.
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
    """Raise an error if the memory of an argument, given by name, does not hold its numbers.

    Raises:
        DtypeError: names the first of them, and says what to pass instead.
    """
    for name, value in values.items():
        if kind(value) in (Kind.REFUSED, Kind.CAUSAL_BIAS, Kind.NESTED):
            refuse(name, value)


def refuse(name: str, value: Tensor) -> NoReturn:
    """Raise an error that says why an argument cannot be read and what to pass instead."""
    known = _unreadable_class(type(value))
    if known is not None:
        why = _BY_NAME[known].format(name=name)
    elif value.is_nested:
        why = f"is a nested tensor. Call torch.nested.to_padded_tensor({name}, 0.0), or {name}.unbind() for its parts."
    elif value.is_quantized:
        why = f"is quantized ({value.dtype}), so its memory holds integer steps. Call {name}.dequantize()."
    else:
        why = f"has layout {value.layout}, expected dense memory (torch.strided). Call {name}.to_dense()."
    raise DtypeError(f"{name} {why}")


def _raise_not_implemented(function: Callable[..., Any], values: list[Any]) -> NoReturn:
    names = " and ".join(sorted({type(value).__name__ for value in values}))
    raise DtypeError(
        f"{names}.__torch_function__ returned NotImplemented for clearhead's {function.__qualname__}. "
        f"Implement it there, or pass plain tensors."
    )


def _differs(bound: inspect.BoundArguments, name: str) -> bool:
    """Return whether an option differs from its default."""
    return bound.arguments[name] is not bound.signature.parameters[name].default


def _customizes_torch_function(cls: type) -> bool:
    """Return whether a class's __torch_function__ does more than wrap results in the class."""
    function = cls.__torch_function__  # type: ignore[attr-defined]
    return function is not _NO_DISPATCH and getattr(function, "__func__", function) is not _DEFAULT


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
def _unreadable_class(cls: type) -> str | None:
    """Return the class of `_BY_NAME` that it is or derives from. Some are re-exported from a private `_api` module."""
    for base in cls.__mro__:
        for name in _BY_NAME:
            module, _, own = name.rpartition(".")
            if base.__name__ == own and base.__module__.replace("._api", "") == module:
                return name
    return None
