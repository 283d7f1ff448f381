"""Kernels that run everywhere: torch's own attention, blockwise torch, and the float64 reference."""
