"""Attention as torch records, decomposes or differentiates it: for TorchScript, ONNX and derivatives of any order."""
