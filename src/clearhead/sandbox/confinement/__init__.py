"""What a program may do, by kernel feature: Landlock, seccomp, tmpfs, resource limits."""
