"""`clearhead.accelerate`: run torch's attention on our CPU kernels, for every model of the process."""

import os
import threading
import warnings
from types import TracebackType
from typing import Any

import torch

from clearhead.errors import KernelError, OptionError
from clearhead.kernels.native.cpu_targets import current
from clearhead.kernels.native.library import library, missing, reads_tensors
from clearhead.multihead.torch_overrides import Overrides

VARIABLE = "CLEARHEAD_ACCELERATE"


def accelerate() -> "Acceleration":
    """Run torch's attention on our CPU kernels, in the whole process, until `undo()` or the end of a `with` block.

    It covers `F.scaled_dot_product_attention`, and with it `nn.MultiheadAttention`, torch's Transformer layers and
    Hugging Face models. A call that our kernels do not support, or that torch computes faster
    (`clearhead.kernels.explain`), runs on torch's own kernel. `CLEARHEAD_ACCELERATE=1` calls it when clearhead is
    imported.

    Calls nest: torch's own kernels are restored when the last one is undone.

    Returns:
        A handle with `undo()`, `is_active` and `counts`; also a context manager.
    Raises:
        KernelError: the native library was not built, or cannot run here.

    Example:
        >>> q = torch.randn(1, 2, 5, 8)
        >>> with accelerate() as acceleration:
        ...     out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        >>> sum(acceleration.counts.values()), acceleration.is_active
        (1, False)
    """
    return Acceleration()


class Acceleration:
    """One call of `accelerate`. `with` undoes it at the end of the block; a block entered later starts it again.

    Blocks of one handle may nest and overlap, also in several threads: the last one to end undoes it. A copy of a
    handle, or one unpickled in another process, is not active.
    """

    def __init__(self) -> None:
        self._is_active = False
        self._blocks = 0
        self._start()

    @property
    def is_active(self) -> bool:
        """Whether this call has not been undone."""
        return self._is_active

    @property
    def counts(self) -> dict[str, int]:
        """How many calls ran on which kernel since acceleration was turned on in this process.

        "forward" and "backward" count calls of scaled_dot_product_attention on our kernels, "module" calls of the C++
        path of torch's module in evaluation, "torch" calls on torch's own kernels.
        """
        with _lock:
            _installation.count()
        return dict(self._counts)

    def undo(self) -> None:
        """Restore torch's own kernels, unless another call of `accelerate` is active. Further calls do nothing."""
        with _lock:
            if self._is_active:
                self._is_active = False
                _installation.release()

    def _start(self) -> None:
        with _lock:
            if not self._is_active:
                self._counts = _installation.acquire()
                self._is_active = True

    def __enter__(self) -> "Acceleration":
        with _lock:
            self._start()
            self._blocks += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            self._blocks -= 1
            if self._blocks <= 0:
                self._blocks = 0
                self.undo()

    def __getstate__(self) -> dict[str, Any]:
        return {"_is_active": False, "_blocks": 0, "_counts": self.counts}

    def __repr__(self) -> str:
        return f"<clearhead.accelerate, {'active' if self._is_active else 'undone'}: {self.counts}>"


class _Installation:
    """Our functions in torch's dispatcher, on while at least one call of `accelerate` is active.

    They stay registered: removing them while another thread is inside one crashes (torch 2.13).
    """

    def __init__(self) -> None:
        self._users = 0
        self._overrides: Overrides | None = None

    def acquire(self) -> dict[str, int]:
        """Switch our functions on; return the counts of their calls."""
        if self._users == 0:
            _check()
        if self._overrides is None:
            overrides = Overrides()
            overrides.register()
            self._overrides = overrides
        if self._users == 0:
            self._overrides.turn_on()
        self._users += 1
        return self._overrides.counts

    def release(self) -> None:
        self._users -= 1
        if self._users == 0 and self._overrides is not None:
            self._overrides.turn_off()

    def count(self) -> None:
        """Bring the counts up to date."""
        if self._overrides is not None:
            self._overrides.count_native()


_lock = threading.RLock()
_installation = _Installation()
if hasattr(os, "register_at_fork"):  # a child forked while another thread holds the lock could never take it
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _check() -> None:
    if library is None:
        why = missing.removeprefix("the native library ") or "was not built"
        raise KernelError(f"clearhead.accelerate() needs the native library, which {why}.")
    if not reads_tensors:
        raise KernelError(
            f"clearhead.accelerate() needs a torch whose tensors have __dlpack_c_exchange_api__, and torch "
            f"{torch.__version__} does not. Update torch."
        )
    target, reason = current()
    if target is None:
        raise KernelError(f"clearhead.accelerate() has no kernel for this CPU: {reason}.")


def accelerate_by_environment() -> None:
    """Accelerate if CLEARHEAD_ACCELERATE is 1; if that is not possible, warn, because an import must not fail."""
    setting = os.environ.get(VARIABLE, "")
    if setting in ("", "0"):
        return
    if setting != "1":
        warnings.warn(f"{VARIABLE}={setting!r} is ignored. Set it to 1 or 0.", RuntimeWarning, stacklevel=2)
        return
    try:
        accelerate()
    except (KernelError, OptionError) as error:
        warnings.warn(f"{VARIABLE}=1 has no effect: {error}", RuntimeWarning, stacklevel=2)
