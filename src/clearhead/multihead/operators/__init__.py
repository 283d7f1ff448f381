"""Attention as a custom operator, for TorchScript, as a decomposition for ONNX, and for derivatives of any order."""
