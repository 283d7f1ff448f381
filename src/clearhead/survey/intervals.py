"""95% confidence intervals of means (Student) and of shares (Wilson)."""

from __future__ import annotations

import math
from functools import lru_cache

Z = 1.959963984540054  # the normal distribution's 97.5% quantile
MOST_EXACT = 200  # degrees of freedom up to which Student's distribution is summed; above, a series in 1/freedom


def of_mean(mean: float, variance: float, count: int) -> tuple[float, float]:
    """Return the interval of a mean over `count` >= 2 independent values with this sample variance (Student's t).

    >>> [round(bound, 3) for bound in of_mean(1.0, 4.0, 16)]
    [-0.066, 2.066]
    """
    half = student(count - 1) * math.sqrt(variance / count)
    return mean - half, mean + half


def of_share(successes: int, trials: int) -> tuple[float, float]:
    """Return the interval of a share. Source: Wilson 1927, "Probable Inference, the Law of Succession".

    >>> [round(bound, 4) for bound in of_share(5, 10)]
    [0.2366, 0.7634]
    """
    share, square = successes / trials, Z * Z
    middle = share + square / (2 * trials)
    half = Z * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    low = (middle - half) / scale if successes else 0.0  # exactly, not the 1e-18 that rounding leaves
    high = (middle + half) / scale if successes < trials else 1.0
    return low, high


@lru_cache
def student(freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution. Source: Abramowitz & Stegun 26.7.3, 26.7.4 and 26.7.5.

    >>> [round(student(freedom), 3) for freedom in (1, 2, 10, 63, 10_000)]
    [12.706, 4.303, 2.228, 1.998, 1.96]
    """
    if freedom > MOST_EXACT:
        terms = (
            (Z**3 + Z) / 4,
            (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96,
            (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384,
        )
        return Z + sum(term / freedom**power for power, term in enumerate(terms, 1))
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # bisection to the last bit
        angle = (low + high) / 2
        low, high = (angle, high) if _between(angle, freedom) < 0.95 else (low, angle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _between(angle: float, freedom: int) -> float:
    """The probability that |t| is below sqrt(freedom) tan(angle)."""
    odd = freedom % 2
    square, term, total = math.cos(angle) ** 2, math.cos(angle) if odd else 1.0, 0.0
    for place in range(freedom // 2):
        total += term
        term *= square * (2 * place + 1 + odd) / (2 * place + 2 + odd)
    return (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
