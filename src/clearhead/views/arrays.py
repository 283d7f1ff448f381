"""From a tensor, wherever it lives, to numbers a picture can use."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]


def numbers(tensor: "Tensor") -> Array:
    """A tensor's values as float64, whatever device or dtype they had."""
    return tensor.detach().to(device="cpu").double().numpy()
