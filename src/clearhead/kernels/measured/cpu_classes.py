"""What kernels cost on CPUs of a class: the plan's figures where `clearhead tune` was not run.

A class is the instructions that its CPUs have and that the target uses there, and where two kinds of CPU have the same
instructions also their family. A task that a class has no figures for is looked up in the next one that this CPU
belongs to, and where none has any our kernel is taken. Each pair is ours and torch's: microseconds a call, a head and a
million multiply-adds of one thread, as `clearhead tune --json` prints them.
"""

from typing import NamedTuple

import torch

from clearhead.kernels.measured.tasks import Cost, Costs
from clearhead.kernels.native.cpu_targets import Target

_F32, _F64, _BF16, _F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16


class CpuClass(NamedTuple):
    """CPUs that have some instructions in common.

    Attributes:
        name: the CPU that was measured, when, and where the whole measurement is.
        needs: the instructions, which the target must need as well: its costs are those of the kernels that use them.
        family: the CPU's family, as in /proc/cpuinfo; None for any.
    """

    name: str
    needs: frozenset[str]
    costs: Costs
    family: int | None = None


def of(target: Target, features: frozenset[str], family: int) -> list[CpuClass]:
    """The classes that a CPU of such features and family belongs to while it runs a target, most special first."""
    return [
        each
        for each in CLASSES
        if each.needs <= features and each.needs <= set(target.needs) and each.family in (None, family)
    ]


# Two cores of an Emerald Rapids Xeon, 2026-11-29, at real-time priority beside other work: float32 and bfloat16 without
# gradients are fitted to the sweep (bench/sweep/costs.py), the others are those of `clearhead tune`. "short" and tasks
# of many keys are fitted to both kernels of 66 shapes in turn, and so are float16 without gradients and short gradients
# of float64; the other float64 of many keys are those of few. "one query" of bfloat16 and float16: 47 shapes in turn.
_AMX: Costs = {
    ("one query", _F32): (Cost(7.97, 0.402, 115), Cost(6.28, 0.447, 134)),
    ("one query", _BF16): (Cost(11.7, 0, 121), Cost(10.9, 0.969, 145)),
    ("one query", _F16): (Cost(19.4, 1.95, 419), Cost(11.1, 2.27, 379)),
    ("one query", _F64): (Cost(6.09, 0, 341), Cost(10.1, 0, 344)),
    ("few queries", _F32): (Cost(8.34, 0.829, 194), Cost(6.35, 0.664, 150)),
    ("few queries", _BF16): (Cost(9.19, 1.54, 148), Cost(6.21, 3.08, 103)),
    ("few queries", _F16): (Cost(6.01, 2.53, 103), Cost(16.8, 2.73, 79.1)),
    ("few queries", _F64): (Cost(1.78, 2.28, 132), Cost(8.73, 1.47, 151)),
    ("few queries, many keys", _F32): (Cost(14, 0, 55.3), Cost(8.33, 0, 60.4)),
    ("few queries, many keys", _BF16): (Cost(13.3, 0, 36.1), Cost(19.8, 0, 29)),
    ("few queries, many keys", _F16): (Cost(18.4, 0, 82.9), Cost(19.7, 0, 67.5)),
    ("few queries, many keys", _F64): (Cost(1.78, 2.28, 132), Cost(8.73, 1.47, 151)),
    ("short", _F32): (Cost(9.05, 1.34, 45), Cost(5.8, 2.16, 18.2)),
    ("short", _BF16): (Cost(7.47, 2.17, 41), Cost(5.37, 3.52, 9.85)),
    ("short", _F16): (Cost(24.4, 2.25, 89.9), Cost(15, 3.6, 29)),
    ("short", _F64): (Cost(11.8, 0.99, 41.2), Cost(10.9, 2.79, 50.2)),
    ("short, many keys", _F32): (Cost(19.3, 0, 41.3), Cost(18.7, 0, 27)),
    ("short, many keys", _BF16): (Cost(16.9, 0, 20.9), Cost(7.38, 0, 29.7)),
    ("short, many keys", _F16): (Cost(11.6, 0, 111), Cost(7.18, 2.35, 65.6)),
    ("short, many keys", _F64): (Cost(11.8, 0.99, 41.2), Cost(10.9, 2.79, 50.2)),
    ("forward", _F32): (Cost(13.8, 2.13, 18.2), Cost(8.59, 7.4, 20.6)),
    ("forward", _BF16): (Cost(18.7, 5.36, 6.64), Cost(15.6, 12.1, 9.44)),
    ("forward", _F16): (Cost(11.8, 4.59, 23.9), Cost(8.53, 16.2, 30.8)),
    ("forward", _F64): (Cost(6.08, 4.02, 36.2), Cost(10.5, 8.08, 47.1)),
    ("one query, gradients", _F32): (Cost(78.2, 2.32, 3133), Cost(54, 1.56, 1458)),
    ("one query, gradients", _BF16): (Cost(81.3, 3.79, 2357), Cost(52.1, 2.12, 2242)),
    ("one query, gradients", _F16): (Cost(80.2, 2.79, 2937), Cost(65.1, 5.32, 3180)),
    ("one query, gradients", _F64): (Cost(79.3, 2.62, 3825), Cost(59.8, 1.29, 2509)),
    ("few queries, gradients", _F32): (Cost(81.8, 0, 2532), Cost(61.5, 0, 1630)),
    ("few queries, gradients", _BF16): (Cost(69.7, 6.85, 253), Cost(59.3, 6.17, 871)),
    ("few queries, gradients", _F16): (Cost(67.1, 6.73, 325), Cost(57.8, 8.77, 958)),
    ("few queries, gradients", _F64): (Cost(108, 0, 518), Cost(84, 0, 378)),  # calls: medians of the sweep
    ("short, gradients", _F32): (Cost(105, 4.46, 133), Cost(88.4, 4.79, 109)),
    ("short, gradients", _BF16): (Cost(99.1, 5.34, 68.6), Cost(184, 93.6, 62.4)),
    ("short, gradients", _F16): (Cost(94.4, 4.58, 175), Cost(33, 122, 171)),
    ("short, gradients", _F64): (Cost(93.1, 9.5, 357), Cost(61.9, 8.26, 673)),
    ("gradients", _F32): (Cost(37.7, 16.6, 68.8), Cost(0, 27, 81.2)),
    ("gradients", _BF16): (Cost(82.8, 17.9, 20.2), Cost(407, 154, 76.6)),
    ("gradients", _F16): (Cost(65.8, 13, 69), Cost(186, 145, 131)),
    ("gradients", _F64): (Cost(65.5, 17.6, 122), Cost(52.8, 20.7, 148)),
    ("linear", _F32): (Cost(21.6, 0, 15.1), Cost(12.5, 0, 15.2)),
    ("linear", _BF16): (Cost(22.1, 0, 17.1), Cost(35.5, 0, 1.71)),
    ("linear", _F16): (Cost(75, 0, 19.3), Cost(24.4, 0, 14.5)),
}

# What a Zen 4 alone has, because a Zen 5 differs or was not measured. "linear": 11 layers of 1 to 256 rows, 384 to
# 2,048 wide, each way in turn, 2026-11-29. Ours takes 0.45 to 0.8 of torch's time up to 8 rows, twice it from 128 rows.
_ZEN4: Costs = {
    ("linear", _BF16): (Cost(17, 0, 20.5), Cost(28, 0, 10)),
}

# Two cores of a Zen 4 (EPYC, family 25 model 17), 2026-11-29, at real-time priority beside other work: each kernel in
# processes of its own, in turn, the fastest of 2 or 3 starts, for torch's kernel may be 1.3 times as slow in one as in
# the next (bench/LOG.md). Only tasks of which some go to torch, and those that a Zen 3 has costs for. Quiet calls of
# target avx512, which computes bfloat16 by conversion, are within 10 % of them: bench/results/sweep-avx512-on-zen4.md.
# No Zen 5 was measured below 128 tokens. Calls and heads of one and few queries are those of up to 16 keys, the work
# that of up to 1,031 keys.
_AVX512: Costs = {
    ("one query, gradients", _F32): (Cost(69.7, 1.07, 700), Cost(46, 1.1, 860)),
    ("one query, gradients", _BF16): (Cost(69.5, 0.9, 530), Cost(50, 1.1, 3300)),
    ("one query, gradients", _F16): (Cost(72.7, 1.6, 1320), Cost(52.5, 4.5, 5325)),
    ("one query, gradients", _F64): (Cost(70.5, 0.9, 1340), Cost(47, 0.9, 1500)),
    ("few queries, gradients", _F32): (Cost(72.5, 2.4, 220), Cost(55, 2, 335)),
    ("few queries, gradients", _BF16): (Cost(71.2, 1.53, 190), Cost(56, 4.45, 700)),
    ("few queries, gradients", _F16): (Cost(75.8, 2.33, 360), Cost(57, 7, 1700)),
    ("few queries, gradients", _F64): (Cost(75, 2.1, 450), Cost(58, 1.8, 680)),
    ("short, gradients", _F32): (Cost(82.9, 3.37, 145), Cost(56.8, 4.42, 106)),
    ("short, gradients", _F64): (Cost(75.7, 5.5, 285), Cost(54, 17.6, 358)),
    ("gradients", _F32): (Cost(76, 7, 112), Cost(53, 16, 135)),  # 1 to 4 heads of up to 64 tokens
    ("gradients", _F64): (Cost(80, 9, 262), Cost(52, 25, 330)),
}

# Two cores of a Skylake Xeon of 2 GHz (family 6 model 85: AVX-512 without products of bfloat16), alone, 2026-11-30:
# `bench.sweep.choices`, once; float16 on few queries: 40 shapes of both kernels in turn. A call takes three
# times as long as on a Zen 4, so that the Zen 4's costs chose wrongly for one head. "linear": 5 layers.
_SKYLAKE: Costs = {
    ("few queries, many keys", _F16): (Cost(30, 0, 145), Cost(28, 0, 105)),
    ("one query, gradients", _F32): (Cost(324, 3.14, 2460), Cost(229, 4.44, 3430)),
    ("one query, gradients", _BF16): (Cost(427, 1.57, 1790), Cost(288, 5.14, 14200)),
    ("one query, gradients", _F16): (Cost(288, 8.5, 2810), Cost(223, 19.9, 13300)),
    ("one query, gradients", _F64): (Cost(274, 1.03, 6140), Cost(198, 0.531, 5260)),
    ("few queries, gradients", _F32): (Cost(288, 4.42, 713), Cost(215, 9.95, 837)),
    ("few queries, gradients", _BF16): (Cost(430, 12.5, 510), Cost(450, 56.2, 2741)),
    ("few queries, gradients", _F16): (Cost(308, 7.61, 1070), Cost(209, 35.5, 7130)),
    ("few queries, gradients", _F64): (Cost(386, 13.7, 1490), Cost(249, 37.2, 1660)),
    ("short, gradients", _F32): (Cost(293, 11.5, 428), Cost(227, 20.6, 483)),
    ("short, gradients", _BF16): (Cost(349, 16.4, 291), Cost(258, 274, 896)),
    ("short, gradients", _F16): (Cost(321, 12, 471), Cost(280, 26.3, 4840)),
    ("short, gradients", _F64): (Cost(396, 13.2, 453), Cost(327, 15.7, 534)),
    ("gradients", _F32): (Cost(479, 39.7, 161), Cost(372, 65.5, 236)),
    ("gradients", _BF16): (Cost(400, 39.6, 92.3), Cost(347, 481, 403)),
    ("gradients", _F16): (Cost(421, 43.6, 169), Cost(388, 223, 4074)),
    ("gradients", _F64): (Cost(321, 7.46, 519), Cost(235, 16.6, 624)),
    ("linear", _F32): (Cost(60, 0, 34.5), Cost(160, 0, 32.5)),
    ("linear, few rows", _F32): (Cost(60, 0, 150), Cost(30, 0, 150)),
}

# Gradients of a few tokens take torch's function, because ours runs Python in its backward pass. Two cores of a Zen 4
# held to AVX2, 2026-11-30, at real-time priority: fitted to both kernels in turn with 1 to 96 heads, then lowered for
# torch where a sweep on a quiet machine found its kernel faster. Beside other work that takes up to twice as long, ours
# does not. A Zen 3 takes twice as long for a call, ours 27 to 33 µs longer than torch's (bench/LOG.md); its kernels
# have changed since, so that its own figures do not count any more.
_AVX2: Costs = {
    ("one query, gradients", _F32): (Cost(72.8, 1.15, 800), Cost(47, 1.3, 875)),
    ("one query, gradients", _BF16): (Cost(75.8, 0.381, 480), Cost(57.2, 0.74, 2850)),
    ("one query, gradients", _F16): (Cost(81, 0.39, 2550), Cost(59.5, 4.14, 5150)),
    ("one query, gradients", _F64): (Cost(69, 1, 1690), Cost(47, 1.6, 1700)),
    ("few queries, gradients", _F32): (Cost(77, 2, 250), Cost(58, 2, 370)),
    ("few queries, gradients", _BF16): (Cost(79.9, 1.91, 183), Cost(65.6, 3.31, 546)),
    ("few queries, gradients", _F16): (Cost(82.9, 1.43, 582), Cost(66.6, 4.93, 1654)),
    ("few queries, gradients", _F64): (Cost(71.5, 3.3, 550), Cost(57, 2.9, 760)),
    ("short, gradients", _F32): (Cost(77, 5.7, 0), Cost(56, 16, 0)),
    ("short, gradients", _BF16): (Cost(77, 5.8, 0), Cost(64, 2.5, 900)),
    ("short, gradients", _F16): (Cost(78, 6, 330), Cost(62, 4.6, 1400)),
    ("short, gradients", _F64): (Cost(77, 5.5, 285), Cost(54, 17.6, 358)),
    ("gradients", _F32): (Cost(77, 6, 140), Cost(50, 16, 165)),
    ("gradients", _F64): (Cost(80, 9, 262), Cost(52, 25, 330)),
}

CLASSES = (
    CpuClass("Intel AMX, an Emerald Rapids Xeon", frozenset({"amx-bf16"}), _AMX),
    CpuClass("a Zen 4 (bench/results/zen4.md)", frozenset({"avx512bf16"}), _ZEN4, family=25),
    CpuClass("a Skylake Xeon (bench/results/skylake.md)", frozenset({"avx512f"}), _SKYLAKE, family=6),
    CpuClass("AVX-512, a Zen 4", frozenset({"avx512f"}), _AVX512),
    CpuClass("AVX2, a Zen 4 held to it (bench/results/sweep-avx2-on-zen4.md)", frozenset({"avx2"}), _AVX2),
)
