"""Kernel "native": the C++ of native/ on the CPU: the library, its CPU targets, and how a call reaches it."""
