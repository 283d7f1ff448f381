"""Kernel "native": the C++ of native/ on the CPU: the library, its CPU targets, and the calls to it."""
