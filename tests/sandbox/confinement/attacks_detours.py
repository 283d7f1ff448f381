"""Attacks by a detour: another door of the kernel to what is refused at the first, and ways to hold on to the machine."""

from sandbox.confinement.attacks_kernel import _refused

_MACHINE_CODE = """
import mmap
if ARM: raise OSError("x86 only")
m = mmap.mmap(-1, 4096, prot=7)
m.write(bytes([0x53, 0xb8, {number}, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, 0x5b, 0xc3]))  # int 0x80
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
breach(ctypes.CFUNCTYPE(ctypes.c_int)(at)() > 0)
"""
_MAP = """
import json, mmap
fd = os.open(json.__file__, os.O_RDONLY)
"""

DETOURS = {
    "call the kernel's 32-bit door": _MACHINE_CODE.replace("{number}", "20"),
    "fork by the 32-bit door": _MACHINE_CODE.replace("{number}", "2"),
    "open a file below a path descriptor": (
        "fd = os.open('/', os.O_PATH)\nbreach(os.read(os.open('etc/passwd', os.O_RDONLY, dir_fd=fd), 9))"
    ),
    "write below a path descriptor": (
        "fd = os.open({home!r}, os.O_PATH)\nos.open('new', os.O_WRONLY | os.O_CREAT, dir_fd=fd); breach()"
    ),
    "rename out of its folder": "open('f', 'w').close(); os.rename('f', {home!r} + '/moved'); breach()",
    "exchange a file with the secret": (
        "open('f', 'w').close()\nbreach(SYS((316, 276), -100, b'f', -100, {secret!r}.encode(), 2) == 0)"
    ),
    "read the keys by /proc": "breach(open('/proc/keys').read())",
    "map a library to write": _MAP + "mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE); breach()",
    "map a library to read, then write": (
        _MAP + "libc.mmap.restype = ctypes.c_void_p\np = libc.mmap(None, ctypes.c_size_t(4096), 1, 1, fd, 0)\n"
        "breach(libc.mprotect(ctypes.c_void_p(p), ctypes.c_size_t(4096), 3) == 0)"
    ),
    "set a limit at an address of zero bits": (
        "libc.mmap.restype = ctypes.c_void_p\n"
        "p = libc.mmap(ctypes.c_void_p(1 << 32), ctypes.c_size_t(4096), 3, 0x100022, -1, 0)\n"
        "breach(p == 1 << 32 and SYS((302, 261), 0, 7, 1 << 32, 0) == 0)"
    ),
    "type into the terminal by high bits": "breach(SYS((16, 29), 0, (1 << 32) | 0x5412, b'x') == 0)",
    "send signals by a flag with high bits": "r, w = os.pipe()\nbreach(SYS((72, 25), r, 4, (1 << 32) | 0x2000) == 0)",
    "unshare its files in a thread": "breach(libc.unshare(0x600) == 0)",
    "a child that shares its memory": "breach(SYS((56, 220), 0x4100 | 17, 0, 0, 0, 0) > 0)",
    "a sibling instead of a child": "breach(SYS((56, 220), 0x8000 | 17, 0, 0, 0, 0) > 0)",
    "read the environment below Python": (
        "e, i = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ'), 0\n"
        "while e[i]:\n    breach(b'{token}' in e[i]); i += 1"
    ),
    "find a secret among Python's objects": (
        "import gc\nword = '-'.join('{token}'.split('-'))\n"
        "breach(any(type(o) is dict and word in o.values() for o in gc.get_objects()\n"
        "    if type(o) is dict and o is not globals()))"
    ),
    "label a file by the new call": _refused(463),
    "read the attributes of a file by the new call": _refused(464),
    "set the attributes of a file": _refused(469),
    "change the attributes of a tree": _refused(467),
    "find a mount's state": _refused(457),
    "label itself": _refused(460),
    "advise another process": _refused(440),
    "reap another process": _refused(448),
    "bind memory to a node": _refused((237, 235)),
    "wait on many futexes": _refused(449, "0, 1, 0, 0, 0"),
    "ask what is in the page cache": _refused(451),
    "splice two pipes": _refused((275, 76), "0, 0, 1, 0, 0, 0"),
    "tee a pipe": _refused((276, 77), "0, 1, 0, 0"),
    "give pages to a pipe": _refused((278, 75), "1, 0, 0, 0"),
    "copy within the kernel": _refused((326, 285), "0, 0, 1, 0, 0, 0"),
    "load a module by descriptor": _refused((313, 273), "-1, b'', 0"),
    "load a kernel by descriptor": _refused((320, 294), "-1, -1, 0, b'', 0"),
    "adjust the clock": _refused((159, 171), "0"),
    "set the domain's name": _refused((171, 162), "b'x', -1"),
    "hang up the terminal": _refused((153, 58)),
}  # fmt: skip
# Nothing refuses these: a limit ends them.
HELD = {
    "stop itself and stay": "import signal\nos.kill(os.getpid(), signal.SIGSTOP)\nimport time\nwhile True: time.sleep(9)",
    "yield for ever in many threads": (
        "import threading\ndef work():\n    while True: os.sched_yield()\n"
        "for _ in range(30): threading.Thread(target=work, daemon=True).start()\nwork()"
    ),
    "nap for ever": "import time\nwhile True: time.sleep(0.001)",
    "grow a shared mapping in place": (
        "import mmap\nm, size = mmap.mmap(-1, 1 << 20), 1 << 20\nwhile True:\n    size += 1 << 24\n    m.resize(size)\n"
        "    for at in range(size - (1 << 24), size, 4096): m[at] = 1"
    ),
    "take memory by one order": (
        "import mmap\nkept = []\nwhile True:\n    kept.append(mmap.mmap(-1, 8 << 20))\n"
        "    at = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))\n"
        "    libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(8 << 20), 23)\n"
        "    if len(kept) > 60: kept[-1][0] = 1; [m.__setitem__(slice(0, 4096), b'x' * 4096) for m in kept]"
    ),
    "unpack a bomb": (
        "import zlib\nd, z = zlib.decompressobj(), zlib.compressobj()\npart = z.compress(bytes(1 << 24)) + z.flush(2)\n"
        "x = bytearray(d.decompress(part))\nwhile True: x += d.decompress(zlib.compress(bytes(1 << 24))[2:-4]) or bytes(1 << 24)"
    ),
    "flood all three at once": (
        "import threading\ndef work(fd):\n    while True: os.write(fd, b'x' * 4096)\n"
        "for fd in (1, 2): threading.Thread(target=work, args=(fd,)).start()\nwork(4)"
    ),
}  # fmt: skip
# These succeed, and do no harm, where nothing confines them.
HARMLESS = (
    "open a file below a path descriptor", "unshare its files in a thread", "set a limit at an address of zero bits",
    "send signals by a flag with high bits", "read the environment below Python",
)  # fmt: skip
