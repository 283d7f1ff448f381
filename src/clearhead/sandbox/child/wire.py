"""Exchange values between the two processes of a test, as JSON. Decoding cannot run code: there are no pickles.

Plain values, lists, tuples, dicts, tensors and dtypes are sent whole. Any other object stays in its process, and a
handle is sent instead. The decoder trusts nothing: it checks sizes and returns plain types only.
"""

import base64
import json
import math
import os
import struct
import sys
from collections.abc import Callable
from typing import Any

LARGEST = 32 << 20  # bytes in one message
_DEEPEST = 40

Out = Callable[[object], dict[str, Any]]
In = Callable[[dict[str, Any]], object]


class WireError(RuntimeError):
    """The other side sent a malformed message, or has ended."""


def send(channel: int, message: object) -> None:
    """Send one message."""
    data = json.dumps(message).encode()
    if len(data) > LARGEST:
        data = json.dumps({"raised": _too_large(len(data))}).encode()
    left = memoryview(struct.pack("<I", len(data)) + data)
    while left:  # write, not send: the system call filter allows no socket calls
        left = left[os.write(channel, left) :]


def receive(channel: int) -> dict[str, Any]:
    """Receive one message. Raises WireError if the other side has ended or sends a malformed message."""
    size = struct.unpack("<I", _exactly(channel, 4))[0]
    if size > LARGEST:
        raise WireError(f"a message of {size:,} bytes; at most {LARGEST:,}")
    try:
        message = json.loads(_exactly(channel, size))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not a message: {error}") from None
    if not isinstance(message, dict):
        raise WireError("not a message")
    return message


def _exactly(channel: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        try:
            part = os.read(channel, min(size - len(parts), 1 << 20))
        except OSError:
            part = b""
        if not part:
            raise WireError("the program ended")
        parts += part
    return bytes(parts)


def _too_large(size: int) -> dict[str, Any]:
    message = f"the value takes {size:,} bytes; at most {LARGEST:,} can be handed over"
    return {
        "type": "OverflowError",
        "message": message,
        "file": "",
        "line": None,
        "chunk": 0,
        "kinds": ["OverflowError"],
    }


def encode(value: object, other: Out, depth: int = 0) -> Any:
    """Encode a value as JSON types. `other` returns a handle for an object that cannot be sent."""
    if depth > _DEEPEST:
        return other(value)
    if value is None or isinstance(value, (bool, str)):
        return value if type(value) in (type(None), bool, str) else str(value)
    if isinstance(value, int):
        return {"i": str(int(value))} if abs(value) > 2**53 else int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"f": repr(float(value))}
    if isinstance(value, (list, tuple)):
        return {"l" if isinstance(value, list) else "t": [encode(item, other, depth + 1) for item in value]}
    if type(value) is dict:
        return {"d": [[encode(key, other, depth + 1), encode(item, other, depth + 1)] for key, item in value.items()]}
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor) and value.layout == torch.strided:
        dense = value.detach().cpu().contiguous()
        raw = dense.reshape(-1).view(torch.uint8).numpy().tobytes() if dense.numel() else b""
        return {
            "tensor": base64.b64encode(raw).decode(), "dtype": str(value.dtype)[6:], "shape": list(value.shape),
            "grad": value.requires_grad,
        }  # fmt: skip
    if torch is not None and isinstance(value, torch.dtype):
        return {"dtype": str(value)[6:]}
    return other(value)


def decode(data: Any, other: In, depth: int = 0) -> object:
    """Decode a value from JSON types. `other` resolves a handle. Raises WireError for anything else."""
    if depth > _DEEPEST + 2:
        raise WireError("too deep")
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if not isinstance(data, dict):
        raise WireError("not a value")
    try:
        if "tensor" in data:
            return _tensor(data)
        if "dtype" in data:
            return _dtype(data["dtype"])
        if "i" in data:
            return int(data["i"][:5000])
        if "f" in data:
            return float(data["f"])
        if "l" in data:
            return [decode(item, other, depth + 1) for item in data["l"]]
        if "t" in data:
            return tuple(decode(item, other, depth + 1) for item in data["t"])
        if "d" in data:
            return {decode(key, other, depth + 1): decode(item, other, depth + 1) for key, item in data["d"]}
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise WireError(f"not a value: {error}") from None
    return other(data)


def _dtype(name: object) -> Any:
    torch = sys.modules["torch"]
    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype):
        raise WireError("not a dtype")
    return dtype


def _tensor(data: dict[str, Any]) -> Any:
    torch = sys.modules["torch"]
    dtype, shape = _dtype(data["dtype"]), [int(item) for item in data["shape"]]
    raw = bytearray(base64.b64decode(data["tensor"], validate=True))
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(raw):
        raise WireError("a tensor's bytes do not fit its shape")
    if not raw:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(raw, dtype=torch.uint8).clone().view(dtype)
    tensor = flat.reshape(shape)
    return tensor.requires_grad_() if data.get("grad") and dtype.is_floating_point else tensor
