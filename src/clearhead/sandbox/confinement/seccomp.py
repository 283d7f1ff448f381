"""Install a system call filter that allows what a computing Python needs, and denies other processes and the network.

The filter is an allow-list. Every other call fails with EPERM, so that Python raises PermissionError and a library
falls back. Threads may start, processes may not: clone needs CLONE_THREAD, and clone3, whose flags a filter cannot see,
returns ENOSYS so that the C library falls back to clone.

No signal leaves the process on any kernel: kill, tkill and tgkill may name only the process itself, and calls that make
the kernel send a signal later are not on the list (F_SETOWN, F_SETSIG, F_NOTIFY, F_SETLEASE, O_ASYNC, FIOSETOWN,
PR_SET_PDEATHSIG, timer_create, mq_notify, io_uring, pidfd_send_signal). Landlock denies them too from Linux 6.12 on.
The old timers, setitimer and alarm, are on the list: they name no process and signal only their own.
Source: Documentation/userspace-api/seccomp_filter.rst of the kernel.
"""

import ctypes
import errno
import os
import platform
import struct

# name: (x86-64, aarch64); None where the architecture has no such call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "close": (3, 57), "close_range": (436, 436), "fstat": (5, 80), "lseek": (8, 62),
    "open": (2, None), "openat": (257, 56), "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49), "getdents64": (217, 61),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "futex": (202, 98), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "getrandom": (318, 278), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136), "sigaltstack": (131, 132), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getpgrp": (111, None), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "exit": (60, 93),
    "exit_group": (231, 94), "pipe": (22, None), "pipe2": (293, 59), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "eventfd2": (290, 19), "unlink": (87, None), "unlinkat": (263, 35),
    "mkdir": (83, None), "mkdirat": (258, 34), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "rmdir": (84, None), "ftruncate": (77, 46), "fsync": (74, 82), "fdatasync": (75, 83), "fadvise64": (221, 223),
    "set_robust_list": (273, 99), "rseq": (334, 293), "membarrier": (324, 283), "sysinfo": (99, 179),
    "uname": (63, 160), "getrlimit": (97, 163), "getrusage": (98, 165), "times": (100, 153),
    "restart_syscall": (219, 128), "umask": (95, 166), "getcpu": (309, 168), "msync": (26, 227),
    "setitimer": (38, 103), "getitimer": (36, 102), "alarm": (37, None),
    "fstatfs": (138, 44), "statfs": (137, 43),
}  # fmt: skip
_CLONE, _CLONE3 = (56, 220), (435, 435)
_SIGNALS = ((62, 129), (200, 130), (234, 131))  # kill, tkill, tgkill: to itself only
_IOCTL, _PRCTL, _PRLIMIT, _FCNTL = (16, 29), (157, 167), (302, 261), (72, 25)
_IOCTL_COMMANDS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, cloexec
_PRCTL_OPTIONS = (15, 16, 0x53564D41)  # set and get the thread's name, name a mapping
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; F_SETFL below
_F_SETFL, _O_ASYNC = 4, 0x2000
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_CLONE_THREAD = 0x00010000
_NAMESPACES = 0x7E020000 | 0x02000000 | 0x00000080  # every CLONE_NEW… flag
_LOAD, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def supported() -> bool:
    """Return whether the filter supports this architecture and the kernel has seccomp."""
    return platform.machine() in _ARCHITECTURES and os.path.exists("/proc/sys/kernel/seccomp")  # noqa: PTH110


def restrict() -> None:
    """Install the filter on this process, irrevocably. Raises OSError if the kernel refuses."""
    program = _program()
    filled = ctypes.create_string_buffer(program, len(program))
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(filled))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, header) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")


def _program() -> bytes:
    """Return the filter as BPF. A jump gives the number of instructions to skip if true, and if false."""
    architecture, column = _ARCHITECTURES[platform.machine()]
    code = [(_LOAD, 0, 0, _ARCH), (_JUMP_EQ, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if column == 0:  # the x32 calls share the architecture's name and have other numbers
        code += [(_JUMP_GE, 0, 1, 0x40000000), (_RETURN, 0, 0, _KILL)]
    for numbers in _ALLOWED.values():
        if numbers[column] is not None:
            code += [(_JUMP_EQ, 0, 1, numbers[column] or 0), (_RETURN, 0, 0, _ALLOW)]
    code += [(_JUMP_EQ, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    me = os.getpid()
    flags = [(_LOAD, 0, 0, _ARGUMENTS), (_JUMP_SET, 2, 0, _NAMESPACES), (_JUMP_SET, 0, 1, _CLONE_THREAD)]
    code += _when(_CLONE[column], flags)
    for numbers in _SIGNALS:  # a thread's id is not the process's: only tgkill names both, and then the first counts
        code += _when(numbers[column], [(_LOAD, 0, 0, _ARGUMENTS), (_JUMP_EQ, 0, 1, me)])
    for numbers, place, values in (
        (_IOCTL, 1, _IOCTL_COMMANDS),
        (_PRCTL, 0, _PRCTL_OPTIONS),
        (_FCNTL, 1, _FCNTL_COMMANDS),
    ):
        for value in values:
            tests = [(_LOAD, 0, 0, _ARGUMENTS + 8 * place), (_JUMP_EQ, 0, 1, value)]
            code += _when(numbers[column], tests, reload=True)
    first, second, third = (_ARGUMENTS + 8 * place for place in range(3))
    set_flags = [(_LOAD, 0, 0, second), (_JUMP_EQ, 0, 3, _F_SETFL), (_LOAD, 0, 0, third), (_JUMP_SET, 1, 0, _O_ASYNC)]
    code += _when(_FCNTL[column], set_flags)
    # prlimit64 may read this process's own limits but set none: its pid is 0 and its new limit NULL.
    asks = [(_LOAD, 0, 0, at) for at in (first, third, third + 4)]
    code += _when(
        _PRLIMIT[column],
        [instruction for at, load in enumerate(asks) for instruction in (load, (_JUMP_EQ, 0, 5 - 2 * at, 0))],
    )
    code.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _when(number: int, tests: list[tuple[int, int, int, int]], reload: bool = False) -> list[tuple[int, int, int, int]]:
    """Allow call `number` where the tests pass; else deny it, or with `reload` go on to the next rule."""
    after = (_LOAD, 0, 0, _NUMBER) if reload else (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    return [(_JUMP_EQ, 0, len(tests) + 2, number), *tests, (_RETURN, 0, 0, _ALLOW), after]
