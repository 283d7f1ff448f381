"""Kernel "triton": attention on GPUs, for what torch's fused operators lack. Importing this imports no Triton."""
