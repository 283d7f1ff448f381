"""Attacks on the machine's disk and memory, and on the watcher that keeps a program to its share of them.

`put` counts what a program has written to the disk, deleted files included, and calls a breach what is beyond
{allowed}: its limit, and on a folder that is only watched what may be written between two looks.
"""

WRITE = """
import mmap
total, BLOCK = 0, b'x' * (1 << 18)
def put(fd, data=BLOCK):
    global total
    total += os.write(fd, data)
    breach(total > {allowed})
def new(name, more=0):
    return os.open(name, os.O_RDWR | os.O_CREAT | more, 0o600)
libc.mmap.restype = ctypes.c_void_p
def map(fd, protection=3, shared=1):
    assert libc.mmap(None, ctypes.c_size_t(4096), protection, shared, fd, ctypes.c_long(0)) != ctypes.c_void_p(-1).value
"""
DEEP = "for _ in range({levels}):\n    os.mkdir({name}{mode}); os.chdir({name})\n"
FILL = "n = 0\nwhile True:\n    n += 1\n    put(new(f'{n}'))\n    os.close(os.open('.', os.O_RDONLY))\n    for fd in range(6, 60):\n        try: os.close(fd)\n        except OSError: pass"
FILL = FILL.replace("{", "{{").replace("}", "}}")


def _deep(levels: int, name: str = "'d'", mode: str = "") -> str:
    return DEEP.format(levels=levels, name=name, mode=mode)


DISK = {
    "fill the disk below 1,100 folders": _deep(1100) + FILL,
    "fill the disk below 30,000 folders": _deep(30000) + FILL,
    "fill it where paths are too long": _deep(40, "'n' * 250") + FILL,
    "fill it in a deleted folder": "os.mkdir('d'); os.chdir('d'); put(new('a')); os.unlink('a'); os.rmdir('../d')\n" + FILL,
    "fill it and forbid looking": "os.mkdir('d'); os.chdir('d'); os.mkdir('e', 0)\nos.umask(0o777)\n" + FILL,
    "make folders that nobody may open": "n = 0\nwhile True:\n    n += 1\n    os.mkdir(f'{{n}}', 0)",
    "delete and keep open": "while True:\n    fd = new('f'); os.unlink('f')\n    for _ in range(16): put(fd)",
    "delete and keep mapped": (
        "while True:\n    fd = new('f'); os.unlink('f')\n    for _ in range(16): put(fd)\n"
        "    map(fd); os.close(fd)"
    ),
    "delete, map to read and close": (
        "while True:\n    fd = new('f'); os.unlink('f')\n    for _ in range(16): put(fd)\n"
        "    map(fd, 1, 2); os.close(fd)"
    ),
    "write by memory alone": (
        "fds, size = [], 1 << 20\nwhile True:\n    fd = new(f'{{len(fds)}}'); os.ftruncate(fd, size)\n"
        "    with mmap.mmap(fd, size) as m:\n        for at in range(0, size, 4096): m[at] = 1\n"
        "    os.close(fd); fds.append(fd); total += size; breach(total > {allowed})"
    ),
    "rename over what was written": (
        "while True:\n    fd = new('a')\n    for _ in range(8): put(fd)\n    os.rename('a', 'b')"
    ),
    "move folders about while it writes": (
        "import threading\nos.mkdir('a')\ndef about():\n    while True: os.rename('a', 'b'); os.rename('b', 'a')\n"
        "threading.Thread(target=about, daemon=True).start()\nn = 0\nwhile True:\n    n += 1\n"
        "    for place in 'ab':\n        try: fd = new(f'{{place}}/{{n}}')\n        except FileNotFoundError: continue\n"
        "        put(fd); os.close(fd)"
    ),
    "write by many threads": (
        "import threading\ndef work(k):\n    for n in range(10**6):\n        fd = new(f'{{k}}-{{n}}'); put(fd); os.close(fd)\n"
        "all = [threading.Thread(target=work, args=(k,)) for k in range(4)]\n"
        "for one in all: one.start()\nfor one in all: one.join()\nos.write(new('more'), BLOCK * 40)"
    ),
    "write files without names": "while True:\n    fd = os.open('.', os.O_RDWR | os.O_TMPFILE, 0o600)\n    for _ in range(8): put(fd)",
    "make 100,000 empty files": "for n in range(100000): os.close(new(f'{{n}}'))\nbreach()",
    "make 100,000 folders": "for n in range(100000): os.mkdir(f'{{n}}')\nbreach()",
    "make names of 255 letters": "for n in range(100000): os.close(new(f'{{n:0255}}'))\nbreach()",
    "make hard links": "os.close(new('a'))\nfor n in range(100000): os.link('a', f'{{n}}')\nbreach()",
    "make symbolic links": "for n in range(100000): os.symlink('x' * 4000, f'{{n}}')\nbreach()",
    "many sparse files, then full ones": (
        "for n in range(1000):\n    fd = new(f'{{n}}'); os.ftruncate(fd, 8 << 20); os.pwrite(fd, b'x', (8 << 20) - 1)\n"
        "    os.close(fd)\n" + FILL
    ),
    "take space without writing": "import itertools\nfor n in itertools.count():\n    fd = new(f'{{n}}'); os.posix_fallocate(fd, 0, 1 << 20); os.close(fd)\n    total += 1 << 20; breach(total > {allowed})",
    "write far out": "for n in range(10**6):\n    fd = new(f'{{n}}'); os.lseek(fd, n << 12, 0); put(fd); os.close(fd)",
    "lie about its own folder": "os.rmdir(os.getcwd()); breach()",
}  # fmt: skip
MEMORY = {
    "take memory under a name that is no text": (
        "import mmap\nlibc.prctl(15, b'\\xff\\xfe\\x80 (', 0, 0, 0)\nm = mmap.mmap(-1, 400 << 20)\n"
        "for at in range(0, len(m), 4096): m[at] = 1\nbreach()"
    ),
    "name itself like a row of its status": (
        "import mmap\nlibc.prctl(15, b'x\\nRssAnon: 0 kB', 0, 0, 0)\nm = mmap.mmap(-1, 400 << 20)\n"
        "for at in range(0, len(m), 4096): m[at] = 1\nbreach()"
    ),
    "take memory as shared": (
        "import mmap\nkept = [mmap.mmap(-1, 32 << 20) for _ in range(16)]\n"
        "for m in kept:\n    for at in range(0, len(m), 4096): m[at] = 1\nbreach()"
    ),
    "take memory in pipes": (
        "import fcntl\nkept = []\ntry:\n    while True: kept += os.pipe()\nexcept OSError: pass\n"
        "for w in kept[1::2]: fcntl.fcntl(w, 1031, 1 << 20); breach()"
    ),
    "hold 1,000 descriptors": "kept = [os.dup(0) for _ in range(1000)]; breach()",
    "take huge pages": "import mmap\nmmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000); breach()",
    "grow a list in place": "x = [0]\nwhile True: x *= 2",
    "grow text": "x = 'x'\nwhile True: x += x",
    "grow an exception": "def f(n):\n    try: f(n + 1)\n    finally: raise ValueError('x' * (1 << 20), bytearray(1 << 20))\nx = []\nwhile True:\n    try: f(0)\n    except BaseException as e: x.append(e)",
    "take memory in many threads": (
        "import threading\ndef work():\n    x = []\n    while True: x.append(bytearray(1 << 18))\n"
        "all = [threading.Thread(target=work) for _ in range(8)]\n"
        "for one in all: one.start()\nfor one in all: one.join()\nbytearray(1 << 40)"
    ),
    "keep no output for itself and flood": "os.dup2(1, 2)\nwhile True: os.write(2, b'\\xff' * 65536)",
    "stop the clock of its own limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6)); breach()"
    ),
    "sleep in many threads": (
        "import threading, time\nfor _ in range(50): threading.Thread(target=time.sleep, args=(10**6,)).start()"
    ),
}  # fmt: skip
# Threads that touch no memory of the program: its start is 27 bytes, and then it waits. `breach` at a tenth of all ids.
THREADS = {
    "take the ids of all processes": (
        "import mmap, struct, time\nif ARM: raise OSError('x86 only')\n"
        "m = mmap.mmap(-1, 8192, prot=7)\nat = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
        "m.write(bytes.fromhex('bf000f010048be') + struct.pack('<Q', at + 8000) + bytes.fromhex(\n"
        "    '31d24d31d24d31c0b8380000000f0585c07401c331ff31f6baffffffffb8070000000f05ebee'))\n"
        "start, n = ctypes.CFUNCTYPE(ctypes.c_int)(at), 0\n"
        "while n < 3000:\n    for _ in range(20): n += start() > 0\n    time.sleep(0.005)\nbreach()"
    ),
}  # fmt: skip
# Refused by a call that fails; the others are stopped at a limit.
DENIED = {
    "take memory by a file of memory": "breach(SYS((319, 279), b'x', 0) >= 0)",
    "lock memory": "breach(SYS((149, 228), ctypes.create_string_buffer(1 << 20), 1 << 20) == 0)",
    "lock all memory": "breach(SYS((151, 230), 1) == 0)",
}  # fmt: skip
DISK = {name: WRITE + source for name, source in DISK.items()}
