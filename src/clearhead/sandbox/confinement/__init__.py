"""Restrict what a program may do, one module per kernel feature: Landlock, seccomp, tmpfs, resource limits."""
