"""Attacks on the kernel's own files and on rarely used system calls: /proc, /sys, /dev, mounts, identity.

What could change the machine is opened and not written, or called with arguments that the kernel refuses.
"""

# SYS with arguments that do nothing: the filter must answer before the kernel looks at them.
REFUSED = "breach(SYS({numbers}, {arguments}) >= 0 or ctypes.get_errno() not in (1, 38))"
WALK = """
waiting, opened = [{place!r}], []
while waiting:
    folder = waiting.pop()
    try: entries = list(os.scandir(folder))
    except OSError: continue
    for entry in entries:
        if entry.is_symlink(): continue
        if entry.is_dir(follow_symlinks=False):
            waiting.append(entry.path)
            continue
        try: os.close(os.open(entry.path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError: continue
        opened.append(entry.path)
breach(opened)
"""


def _open(path: str, flags: str = "os.O_WRONLY") -> str:
    return f"os.close(os.open({path!r}, {flags} | os.O_NONBLOCK | os.O_NOCTTY)); breach()"


def _refused(numbers: int | tuple[int, int], arguments: str = "0, 0, 0, 0, 0") -> str:
    return REFUSED.format(numbers=numbers, arguments=arguments)


KERNEL = {
    **{f"find a file to write in {place}": WALK.format(place=place) for place in ("/proc", "/sys", "/dev", "/run", "/etc", "/usr", "/var", "/tmp/..")},
    "write the core pattern": _open("/proc/sys/kernel/core_pattern"),
    "write the host name": _open("/proc/sys/kernel/hostname"),
    "write the path of modprobe": _open("/proc/sys/kernel/modprobe"),
    "write what binaries are run by": _open("/proc/sys/fs/binfmt_misc/register"),
    "write a message queue's limit": _open("/proc/sys/fs/mqueue/msg_max"),
    "write how far it may ping": _open("/proc/sys/net/ipv4/ping_group_range"),
    "press the system key": _open("/proc/sysrq-trigger"),
    "save itself from being killed": _open("/proc/self/oom_score_adj"),
    "write its memory": _open("/proc/self/mem", "os.O_RDWR"),
    "write its own name": _open("/proc/self/comm"),
    "write its user map": _open("/proc/self/uid_map"),
    "write its label": _open("/proc/self/attr/current"),
    "clear its references": _open("/proc/self/clear_refs"),
    "read the kernel's memory": _open("/proc/kcore", "os.O_RDONLY"),
    "read the kernel's messages": _open("/proc/kmsg", "os.O_RDONLY"),
    "write what a control group runs": _open("/sys/fs/cgroup/memory/release_agent"),
    "make a control group": "os.mkdir('/sys/fs/cgroup/breach'); breach(); os.rmdir('/sys/fs/cgroup/breach')",
    "open a new terminal": _open("/dev/ptmx", "os.O_RDWR"),
    "use the machine's shared memory": "n = '/dev/shm/clearhead-breach'\nopen(n, 'w').close(); os.unlink(n); breach()",
    "open a disk": "import glob\n[os.open(p, os.O_RDONLY) for p in glob.glob('/dev/[vs]d*') + ['/dev/vda', '/dev/sda']]; breach()",
    "open the kernel's log": _open("/dev/kmsg"),
    "open fuse": _open("/dev/fuse", "os.O_RDWR"),
    "open kvm": _open("/dev/kvm", "os.O_RDWR"),
    "be root": "breach(0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()))",
    "hold a capability": (
        "h, d = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()\n"
        "breach(libc.capget(h, d) == 0 and any(d))"
    ),
    "become its own user again": "os.setresuid(os.getuid(), os.getuid(), os.getuid()); breach()",
    "take groups": "os.setgroups([0]); breach()",
    "mount by the new calls": _refused(430, "b'tmpfs', 0"),
    "copy a tree of mounts": _refused(428, "-100, b'.', 1"),
    "move a mount": _refused(429),
    "change a mount": _refused(442),
    "list mounts": _refused(458),
    "unmount": _refused((166, 39), "b'.', 0"),
    "change the root": _refused((155, 41), "b'.', b'.'"),
    "stop the machine": _refused((169, 142)),
    "load a module": _refused((175, 105)),
    "load another kernel": _refused((246, 104)),
    "swap to a file": _refused((167, 224), "b'.', 0"),
    "account for processes": _refused((163, 89), "b'.'"),
    "read the log by a call": _refused((103, 116), "10, 0, 0"),
    "set a disk quota": _refused((179, 60)),
    "watch all files": _refused((300, 262)),
    "watch a folder": _refused((294, 26), "0"),
    "make secret memory": _refused(447, "0"),
    "be another kind of system": _refused((135, 92), "0x20000"),
    "filter its own calls again": _refused((317, 277), "1, 0, 0"),
    "make rules of its own": _refused(444, "0, 0, 1"),
    "make a device": "os.mknod('device', 0o20666, os.makedev(1, 3)); breach()",
    "change the mode of its own file": "open('f', 'w').close(); os.chmod('f', 0o4777); breach()",
    "give its own file away": "open('f', 'w').close(); os.chown('f', 1, 1); breach()",
    "label its own file": "open('f', 'w').close(); os.setxattr('f', 'user.x', b'x' * 60000); breach()",
    "signal by descriptor of a process": _refused(434, "1, 0"),
    "hold the clock": _refused((227, 112), "0, 0"),
    "use old ports": _refused((172, 5), "3"),
}  # fmt: skip
