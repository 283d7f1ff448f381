"""Attacks on other processes: signals sent now, signals the kernel is asked to send later, and what else names a pid.

A call that the kernel accepts is a breach, whether or not the signal arrives: Landlock scopes signals from Linux 6.12
on, and on older kernels the system call filter is all there is.
"""

SIGNALS = {
    "own a pipe as the parent": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, 8, os.getppid()); breach()",
    "own a pipe as the host": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(w, 8, {pid}); breach()",
    "own a pipe as a group": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, 8, -os.getpgrp()); breach()",
    "own a pipe by F_SETOWN_EX": (
        "import fcntl, struct\nr, w = os.pipe()\nfcntl.fcntl(r, 15, struct.pack('ii', 1, os.getppid())); breach()"
    ),
    "own a pipe by a raw call": "r, w = os.pipe()\nbreach(SYS((72, 25), r, 8, os.getppid()) == 0)",
    "hide the command in high bits": "r, w = os.pipe()\nbreach(SYS((72, 25), r, (1 << 32) | 8, os.getppid()) == 0)",
    "ask who owns a pipe": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, 16, b'\\0' * 8); breach()",
    "choose the signal of a pipe": "import fcntl, signal\nr, w = os.pipe()\nfcntl.fcntl(r, 10, signal.SIGKILL); breach()",
    "make a pipe send signals": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC); breach()",
    "make it so by FIOASYNC": "import fcntl\nr, w = os.pipe()\nfcntl.ioctl(r, 0x5452, b'\\1\\0\\0\\0'); breach()",
    "own it by FIOSETOWN": "import fcntl\nr, w = os.pipe()\nfcntl.ioctl(r, 0x8901, b'\\1\\0\\0\\0'); breach()",
    "own it by SIOCSPGRP": "import fcntl\nr, w = os.pipe()\nfcntl.ioctl(r, 0x8902, b'\\1\\0\\0\\0'); breach()",
    "be told of a folder by F_NOTIFY": "import fcntl\nfcntl.fcntl(os.open('.', os.O_RDONLY), 1026, 4); breach()",
    "take a lease": "import fcntl\nfcntl.fcntl(os.open('f', os.O_RDWR | os.O_CREAT), 1024, 1); breach()",
    "choose a signal of its parent's death": "breach(libc.prctl(1, 9, 0, 0, 0) == 0)",
    "a timer that signals a thread": (
        "import struct\ne = ctypes.create_string_buffer(struct.pack('QiiI', 0, 10, 4, os.getppid()), 64)\n"
        "t = ctypes.c_int()\nbreach(SYS((222, 107), 1, e, ctypes.byref(t)) == 0)"
    ),
    "a timer that signals itself": "t = ctypes.c_int()\nbreach(SYS((222, 107), 1, None, ctypes.byref(t)) == 0)",
    "tkill the parent": "breach(SYS((200, 130), os.getppid(), 0) == 0)",
    "tkill the host": "breach(SYS((200, 130), {pid}, 0) == 0)",
    "kill its group by a negative id": "breach(SYS((62, 129), -os.getpgrp(), 0) == 0)",
    "kill by id with high bits": "breach(SYS((62, 129), (1 << 32) | os.getppid(), 0) == 0)",
    "queue a signal for a thread": (
        "breach(SYS((297, 240), os.getppid(), os.getppid(), 0, ctypes.create_string_buffer(128)) == 0)"
    ),
    "signal by pidfd": "breach(SYS(424, 0, 0, None, 0) == 0 or ctypes.get_errno() != 1)",
    "be told of a message queue": "breach(SYS((240, 180), b'breach', 0o102, 0o600, None) >= 0)",
    "a ring of requests": "breach(SYS(427, 0, 0, None, 0) >= 0 or ctypes.get_errno() != 1)",
    "wait for others": "breach(SYS((247, 95), 0, 1, None, 4, None) == 0)",
    "slow the parent down": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19); breach()",
    "move the parent to one core": "os.sched_setaffinity(os.getppid(), [0]); breach()",
    "schedule itself first": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)); breach()",
    "change its priority of input and output": "breach(SYS((251, 30), 1, 0, 0x4000) == 0)",
    "ask for the parent's limits": (
        "b = ctypes.create_string_buffer(16)\nbreach(SYS((302, 261), os.getppid() or 1, 7, None, b) == 0)"
    ),
    "ask for the host's limits": "b = ctypes.create_string_buffer(16)\nbreach(SYS((302, 261), {pid}, 7, None, b) == 0)",
    "compare with the parent": "breach(SYS((312, 272), os.getppid(), os.getpid(), 0, 0, 0) >= 0)",
    "take a descriptor of another process": "breach(SYS(438, 0, 0, 0) >= 0 or ctypes.get_errno() != 1)",
    "write into the parent": (
        "b = ctypes.create_string_buffer(8)\nv = (ctypes.c_ulong * 2)(ctypes.addressof(b), 8)\n"
        "breach(SYS((311, 271), os.getppid(), v, 0, v, 0, 0) >= 0)"
    ),
    "move the parent's pages": "breach(SYS((279, 239), os.getppid(), 0, None, None, None, 0) >= 0)",
    "find the parent's locks": (
        "p, n = ctypes.c_void_p(), ctypes.c_size_t()\n"
        "breach(SYS((274, 100), os.getppid(), ctypes.byref(p), ctypes.byref(n)) == 0)"
    ),
    "lock a file that all share": "import fcntl, json\nfcntl.lockf(open(json.__file__), fcntl.LOCK_SH); breach()",
    "flock a file that all share": "import fcntl, json\nfcntl.flock(open(json.__file__), fcntl.LOCK_EX); breach()",
    "lock it by an open file": (
        "import fcntl, json, struct\nf = open(json.__file__)\n"
        "fcntl.fcntl(f, 37, struct.pack('hhqqi4x', 0, 0, 0, 0, 0)); breach()"
    ),
    "leave its session": "os.setsid(); breach()",
    "join another group": "os.setpgid(0, 0); breach()",
    "a thread that is a process": "breach(SYS((56, 220), 0x00010000 | 0x20000000, 0, 0, 0, 0) > 0)",
}  # fmt: skip
# These calls succeed, and do no harm, where nothing confines them.
HARMLESS = (
    "own a pipe as the parent", "own a pipe as the host", "own a pipe as a group", "own a pipe by F_SETOWN_EX",
    "own a pipe by a raw call", "hide the command in high bits", "ask who owns a pipe", "choose the signal of a pipe",
    "make a pipe send signals", "make it so by FIOASYNC", "be told of a folder by F_NOTIFY",
    "choose a signal of its parent's death", "a timer that signals itself",
    "tkill the parent", "kill by id with high bits", "ask for the parent's limits", "compare with the parent",
    "find the parent's locks", "lock a file that all share", "flock a file that all share", "lock it by an open file",
)  # fmt: skip
