"""Run the native library of an installed wheel against plain softmax: what cibuildwheel does with each wheel."""

import torch

import clearhead

query, key, value = torch.randn(3, 1, 2, 37, 16, dtype=torch.float64).unbind()
expected = torch.softmax(query @ key.mT / 4, -1) @ value
error = (clearhead.attention(query, key, value, kernel="native") - expected).abs().max().item()
if error > 1e-13:
    raise SystemExit(f"the native library is wrong by {error:.1e}")
print(f"clearhead {clearhead.__version__}: the native library is right to {error:.1e}")
