"""Call Landlock's three system calls, after which this process can open only the files it is granted.

Needs neither root nor namespaces, but Linux 6.2 or later (ABI 3, which covers truncation). Network rules came with
ABI 4, scopes for signals and abstract sockets with ABI 6; on older kernels the system call filter denies the same.
Source: Documentation/userspace-api/landlock.rst of the kernel.
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_PR_SET_NO_NEW_PRIVS = 38
_VERSION_FLAG, _PATH_BENEATH = 1, 1

READ_FILE, READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _REFER = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 13
READ = READ_FILE | READ_DIR
WRITE = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_ON_A_FILE = READ_FILE | _WRITE_FILE | _TRUNCATE | 1
_FS_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many file rights each ABI knows; 16 from ABI 5 on (device ioctl)
OLDEST = 3

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def _syscall(number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)


def abi() -> int:
    """Return the kernel's Landlock ABI; 0 if it has none or it is switched off."""
    try:
        return _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except (OSError, AttributeError):
        return 0


def restrict(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Restrict this process irrevocably: it may read files under `readable`, write under `writable`, and nothing else.

    Missing paths are skipped. TCP, signals and abstract sockets to the outside are denied.
    Raises OSError if the kernel refuses.
    """
    version = abi()
    handled = (1 << _FS_BITS.get(version, 16)) - 1
    net, scoped = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    rules = _Ruleset(handled, net, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _syscall(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    for paths, rights in ((readable, READ), (writable, WRITE)):
        for path in paths:
            _grant(ruleset, path, rights & handled)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(NO_NEW_PRIVS)")
    _syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def _grant(ruleset: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        rights &= _ON_A_FILE
    rule = _PathRule(rights, handle)
    _syscall(ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    os.close(handle)
