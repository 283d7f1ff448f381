"""ModuleWatcher: hooks on a model that find which module computes attention, and report each attention."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from clearhead.capture.adapters import bigbird, longformer, prophetnet
from clearhead.capture.adapters.function_mode import AttentionFunctionMode, Editor
from clearhead.capture.adapters.torch_compile import EagerMode, is_compiled
from clearhead.capture.adapters.transformers_interface import uses_interface
from clearhead.capture.attention_modules import (
    innermost,
    is_named_attention,
    is_scripted,
    modules_by_name,
    parent_names,
    scripted_attention,
)
from clearhead.capture.call import Call
from clearhead.capture.head_outputs.replaced_outputs import before_edits, note_edit
from clearhead.capture.position_tracking import PositionTracker
from clearhead.capture.softmax_tracing.frames import Outcome
from clearhead.errors import OptionError

# Class name -> adapter that describes a call from its arguments, for attention in blocks, windows or streams.
ADAPTERS = {name: adapter.describe for adapter in (bigbird, longformer, prophetnet) for name in adapter.CLASSES}


class ModuleWatcher:
    """Tracks which module of a model runs. A subclass records or edits the attention that the module computes.

    Args:
        model: the model; its modules get hooks in `watching`.

    Raises:
        OptionError: the model is compiled by TorchScript.
    """

    def __init__(self, model: nn.Module) -> None:
        if is_scripted(model):
            raise OptionError(
                "model is compiled by TorchScript, which runs without Python, so nothing in it can be observed. "
                "Pass the module that was given to torch.jit.script or torch.jit.trace."
            )
        self._model = model
        modules = self._modules = modules_by_name(model)
        self._names = {id(module): name for name, module in modules.items()}
        self._expected = innermost(modules)
        self._attention = {id(module) for module in modules.values() if is_named_attention(type(module).__name__)}
        self._ran = False
        self._running: list[nn.Module] = []
        self._function_mode: AttentionFunctionMode | None = None
        self._outcomes: dict[int, Outcome] = {}
        self._hooks = ExitStack()
        self._replaced: list[nn.Module] = []  # kept alive, so that their ids are not reused
        self._thread = threading.get_ident()
        self._known_reports: set[str] = set()
        self._unreported: dict[int, RemovableHandle] = {}  # the hooks that check whether a module was reported
        self._tracker = PositionTracker(model, modules)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an inactive watcher: copies of the model contain its hooks, which must do nothing there."""
        return _inactive, (type(self),)

    # Methods of a subclass

    def record_call(self, call: Call) -> Any:
        """Handle one call of attention."""
        raise NotImplementedError

    @property
    def editor(self) -> Editor | None:
        """The editor of attention outputs; None if nothing is edited."""
        return None

    def miss(self, name: str, reason: str) -> None:
        """Note why the attention of a module cannot be described."""
        raise NotImplementedError

    def _is_requested(self, name: str) -> bool:
        raise NotImplementedError

    def _reported(self) -> Iterable[str]:
        """Return the modules that were recorded or missed."""
        raise NotImplementedError

    def _is_reported(self, name: str) -> bool:
        """Whether a module, or one inside it, was recorded or missed."""
        if name not in self._known_reports:
            if not any(other == name or name in parent_names(other) for other in self._reported()):
                return False
            self._known_reports.add(name)  # what was reported stays so
        return True

    # Names

    def layer_name(self, layer: int | str) -> str:
        """Return the name of a layer, given by name or by its index among the model's attention modules.

        Raises:
            OptionError: there is none.
        """
        names = list(self._expected)
        if isinstance(layer, str):
            if layer in self._names.values():
                return layer
            raise OptionError(f"there is no layer named {layer!r}. The model's attention modules: {', '.join(names)}.")
        if -len(names) <= layer < len(names):
            return names[layer]
        raise OptionError(
            f"there is no layer {layer}: the model has {len(names)} attention modules. "
            f"Use 0..{len(names) - 1}, or a name: {', '.join(names)}."
        )

    # Hooks

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside the block, watch calls of torch's functions, and note each attention module that runs unobserved."""
        with ExitStack() as stack:
            self._hooks = stack
            self._tracker.watch(list(self._expected.values()), stack)
            self._watch_more(stack)
            stack.callback(self._model.register_forward_hook(self._model_ran).remove)
            modules = self._expected.values()
            if not modules or is_compiled(self._modules.values()) or not all(map(uses_interface, map(type, modules))):
                eager = stack.enter_context(EagerMode())
                for module in self._modules.values():
                    self._follow(module)
                self._function_mode = stack.enter_context(
                    AttentionFunctionMode(
                        self.record_call, self._current_module, self._could_not_trace, eager, self.editor
                    )
                )
            for name, module in self._modules.items():
                if id(module) in self._attention or type(module).__name__ in ADAPTERS:
                    self._expect(name, module)
                for attribute, kind in scripted_attention(module):
                    self._expect_scripted(name, module, attribute, kind)
            yield

    def _watch_more(self, stack: ExitStack) -> None:
        """Add a subclass's own hooks to the model."""

    def _follow(self, module: nn.Module) -> None:
        """Add the hooks that report when a module runs."""
        for handle in (
            module.register_forward_pre_hook(self._enter, with_kwargs=True),
            module.register_forward_hook(self._leave, always_call=True),
        ):
            self._hooks.callback(handle.remove)

    def _expect(self, name: str, module: nn.Module) -> None:
        """Add hooks to an attention module that report when it has run, and that call its adapter, if any."""
        if type(module).__name__ in ADAPTERS:
            self._hooks.callback(module.register_forward_hook(self._adapter_ran, with_kwargs=True).remove)
        if id(module) in self._attention and self._is_requested(name):
            handle = self._unreported[id(module)] = module.register_forward_hook(self._module_ran)
            self._hooks.callback(handle.remove)

    def _expect_scripted(self, name: str, parent: nn.Module, attribute: str, kind: str) -> None:
        """Add a hook that reports an attention compiled by TorchScript when the module around it has run."""
        inside = f"{name}.{attribute}" if name else attribute

        def ran(*_: Any) -> None:
            if threading.get_ident() == self._thread and self._is_requested(inside):
                self.miss(inside, f"{kind} is compiled by TorchScript, which runs without Python")

        self._hooks.callback(parent.register_forward_hook(ran).remove)

    def _adopt(self, parent: nn.Module) -> None:
        """Add hooks to modules created while the model runs: BigBird replaces its attention for a short text."""
        for attribute, child in parent.named_children():
            if id(child) in self._names or is_scripted(child):
                continue
            place = self._names[id(parent)]
            for name, module in child.named_modules(prefix=f"{place}.{attribute}" if place else attribute):
                if id(module) in self._names:
                    continue
                self._names[id(module)] = name
                self._replaced.append(module)
                self._follow(module)
                if is_named_attention(type(module).__name__):
                    self._attention.add(id(module))
                if name in self._expected:
                    self._replaced.append(self._expected[name])
                    self._expected[name] = module
                self._expect(name, module)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self._running.append(module)
        self._adopt(module)
        if self._function_mode is not None:
            self._function_mode.begin(module, (*args, *kwargs.values()), id(module) in self._attention)
            self._function_mode.adapter_depth += type(module).__name__ in ADAPTERS

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        self._running.pop()
        if self._function_mode is not None:
            self._function_mode.adapter_depth -= type(module).__name__ in ADAPTERS
            self._outcomes[id(module)] = self._function_mode.end(module, output)

    def _current_module(self) -> nn.Module | None:
        """Return the module that computes attention: the innermost with such a class name, or else the innermost."""
        for module in reversed(self._running):
            if self._names[id(module)] in self._expected:
                return module
        return self._running[-1] if self._running else None

    def _could_not_trace(self, module: nn.Module, reason: str) -> None:
        name = self._names[id(module)]
        if self._is_requested(name):
            self.miss(name, reason)

    def _adapter_ran(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Report what an adapter describes. Return the module's output if an edit changes it, else None."""
        if threading.get_ident() != self._thread or not self._is_requested(self._names[id(module)]):
            return None
        own = before_edits(output[0])
        # torch functions of the adapter, and of the comparison with its output, are not the model's.
        with torch._C.DisableTorchFunction():
            call = ADAPTERS[type(module).__name__](module, args, kwargs, (own, *output[1:]))
            self.record_call(call)
        if self.editor is None:
            return None
        if call.out is None or call.out.data_ptr() != own.data_ptr():
            self.miss(self._names[id(module)], "its output holds its heads projected already, so none can be replaced")
            return None
        edited = self.editor.edit(replace(call, out=output[0]))
        if edited is None:
            return None
        return (note_edit(output[0], edited.reshape(output[0].shape)), *output[1:])

    def _model_ran(self, *_: Any) -> None:
        self._ran = self._ran or threading.get_ident() == self._thread

    def _module_ran(self, module: nn.Module, *_: Any) -> None:
        if threading.get_ident() != self._thread:
            return
        name = self._names[id(module)]
        outcome = self._outcomes.pop(id(module), None)
        if self._is_reported(name):
            if self._function_mode is None and id(module) in self._unreported:
                self._unreported.pop(id(module)).remove()  # what was reported stays so
            return
        if outcome is None and name not in self._expected:
            return  # it contains a module that reports for itself
        if outcome is not None and not outcome.mixed and type(module).__name__ not in ADAPTERS:
            return  # an ordinary layer with an attention's name
        reason = "neither through Hugging Face's attention interface nor through torch's own functions"
        more = f"; {outcome.unseen}" if outcome is not None and outcome.unseen else ""
        self.miss(name, f"{type(module).__name__} computes its attention by itself: {reason}{more}")


def _inactive(kind: type[ModuleWatcher]) -> ModuleWatcher:
    """Return a watcher without a thread, whose hooks return at once."""
    watcher = object.__new__(kind)
    watcher._thread, watcher._ran = -1, False
    return watcher
