"""Statistics per key: the weight it receives, and gradient times attention."""

from __future__ import annotations

from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import ShapeError
from clearhead.kernels import Wanted
from clearhead.matrix import products
from clearhead.matrix.questions import statistics
from clearhead.matrix.questions.asking import Asked


class KeyQuestions(Asked):
    """Methods of AttentionMatrix with one number per key, (B, H, S), in float32 or wider."""

    def received(self) -> Tensor:
        """Return the column sums, the weight each key receives, (B, H, S). Cost: about one forward pass."""
        answer = self._sweep(Wanted(received=True))
        return statistics.received(self._wide, self._wide_lse) if answer is None else answer.received

    @checked()
    def gradient_times(self, grad_out: Tensor, value: Tensor | None = None) -> Tensor:
        """Return gradient times attention of each key, Σᵢ aᵢⱼ · ∂loss/∂aᵢⱼ with ∂loss/∂aᵢⱼ = grad_outᵢ·vⱼ: (B, H, S).

        Args:
            grad_out: (B, H, L, D_v), the gradient of a loss with respect to the attention's output.
            value: (B, H_kv, S, D_v); default the matrix's own value.

        Source: Chefer, Gur & Wolf 2021, "Transformer Interpretability Beyond Attention Visualization", eq. 13,
        without the clamp, summed over queries.
        """
        values = self._values(value)
        expected = (*self.shape[:3], values.shape[-1])
        if grad_out.shape != expected:
            raise ShapeError(f"grad_out has shape {tuple(grad_out.shape)}, expected {expected}, axes B,H,L,D.")
        wide = self._wide
        gathered = products.transposed(wide, self._wide_lse, grad_out.to(wide.query.dtype))
        return (gathered * values.to(wide.query.dtype)).sum(-1)
