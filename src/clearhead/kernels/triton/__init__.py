"""Kernel "triton": attention on GPUs for what torch's fused operators do not support. Does not import Triton."""
