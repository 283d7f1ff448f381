"""Attacks on the sandbox. Each prints BREACH if it gets anywhere; `Target` holds what it must not reach.

They show that a door is open and leave things as they were, for the day one does get through.
Run as a module (with the name of a back end, if not the best is meant), it tries them all as the user who runs it and
prints those that got through. More attacks are in attacks_signals.py, attacks_kernel.py, attacks_limits.py and
attacks_detours.py.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from clearhead import sandbox
from clearhead.sandbox import Limits
from sandbox.confinement import attacks_detours, attacks_signals
from sandbox.confinement.attacks_detours import DETOURS, HELD
from sandbox.confinement.attacks_kernel import KERNEL
from sandbox.confinement.attacks_limits import DENIED, DISK, MEMORY, THREADS
from sandbox.confinement.attacks_signals import SIGNALS

# SYS(number, …) is a raw system call; x86-64 and arm64 numbers are given as pairs where they differ.
PRELUDE = """
import ctypes, os, platform, sys
ARM = platform.machine() == "aarch64"
libc = ctypes.CDLL(None, use_errno=True)
def SYS(numbers, *arguments):
    number = numbers if isinstance(numbers, int) else numbers[ARM]
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
def breach(happened=True):
    if happened:
        print("BREACH", flush=True)
"""

FILES = {
    "read a secret file": "breach(open({secret!r}).read())",
    "read it by descriptor": "breach(os.read(os.open({secret!r}, os.O_RDONLY), 9))",
    "read the password file": "breach(open('/etc/passwd').read())",
    "read the shadow file": "breach(open('/etc/shadow').read())",
    "list the home folder": "breach(os.listdir({home!r}))",
    "list the root": "breach(os.listdir('/'))",
    "list other runs' folders": "breach(os.listdir('..'))",
    "go up with chdir": "os.chdir('..'); breach(os.listdir('.'))",
    "read by a symbolic link": "os.symlink({secret!r}, 'link'); breach(open('link').read())",
    "read by a hard link": "os.link({secret!r}, 'hard'); breach(open('hard').read())",
    "read by openat2": "how = (ctypes.c_ulong * 3)(0, 0, 0)\nbreach(SYS(437, -100, {secret!r}.encode(), how, 24) >= 0)",
    "read by a file handle": "breach(SYS((304, 265), -1, ctypes.create_string_buffer(64), 0) >= 0)",
    "read the packs' answers": "breach(open({pack!r}).read())",
    "write beside it": "open({home!r} + '/new', 'w').write('x'); breach()",
    "write to /tmp": "open('/tmp/clearhead-breach', 'w').close(); os.unlink('/tmp/clearhead-breach'); breach()",
    "overwrite the secret": "open({secret!r}, 'w'); breach()",
    "truncate the secret": "os.truncate({secret!r}, 0); breach()",
    "delete the secret": "os.unlink({secret!r}); breach()",
    "rename the secret": "os.rename({secret!r}, 'mine'); breach()",
    "change its mode": "os.chmod({secret!r}, 0o777); breach()",
    "change its time": "os.utime({secret!r}); breach()",
    "make a folder outside": "os.mkdir({home!r} + '/d'); breach()",
    "make a named pipe": "os.mkfifo('pipe'); breach()",
    "plant an import hook": (
        "import sysconfig\np = sysconfig.get_path('purelib') + '/breach.pth'\n"
        "open(p, 'w').close(); os.unlink(p); breach()"
    ),
    "change the standard library": "import json\nopen(json.__file__, 'a').close(); breach()",
    "change the package itself": "import clearhead\nopen(clearhead.__file__, 'a').close(); breach()",
    "read a device": "breach(os.open('/dev/mem', os.O_RDONLY) >= 0)",
    "open the terminal": "breach(os.open('/dev/tty', os.O_RDWR) >= 0)",
    "mount": "breach(libc.mount(b'none', b'.', b'tmpfs', 0, None) == 0)",
    "chroot": "os.chroot('.'); breach()",
}
PROC = {
    "read its environment in /proc": "breach(open('/proc/self/environ', 'rb').read())",
    "read the parent's environment": "breach(open(f'/proc/{{os.getppid()}}/environ', 'rb').read())",
    "read the parent's memory": "breach(open(f'/proc/{{os.getppid()}}/mem', 'rb'))",
    "read the root through /proc": "breach(open('/proc/self/root' + {secret!r}).read())",
    "list processes": "breach(os.listdir('/proc'))",
    "find a secret in the environment": "breach('{token}' in repr(dict(os.environ)))",
    "find a secret in the parent's words": "breach('{token}' in repr(sys.argv) + repr(sys.orig_argv))",
    "find open files it was not given": (
        "for fd in range(5, 4096):\n    try: os.fstat(fd)\n    except OSError: continue\n    breach()"
    ),
}
PROCESSES = {
    "fork": "breach(os.fork() >= 0)",
    "fork by vfork": "breach(SYS((58, 220), 17, 0, 0, 0, 0) > 0)",
    "fork by clone3": "breach(SYS(435, (ctypes.c_ulong * 11)(0, 0, 0, 0, 17), 88) >= 0)",
    "a fork bomb": "while True:\n    os.fork(); breach()",
    "run a shell": "import subprocess\nbreach(subprocess.run(['/bin/sh', '-c', 'true']).returncode == 0)",
    "os.system": "breach(os.system('true') == 0)",
    "exec": "os.execv('/bin/echo', ['echo', 'BREACH'])",
    "exec from memory": "fd = os.memfd_create('x'); breach()",
    "posix_spawn": "os.posix_spawn('/bin/echo', ['echo', 'BREACH'], {{}}); breach()",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start(); breach()",
    "kill the parent": "os.kill(os.getppid(), 0); breach()",
    "signal the parent by thread": "breach(SYS((234, 131), os.getppid(), os.getppid(), 0) == 0)",
    "kill everything": "os.kill(-1, 0); breach()",
    "signal its group": "os.killpg(0, 0); breach()",
    "open the parent by pidfd": "breach(SYS(434, os.getppid(), 0) >= 0)",
    "queue a signal": "breach(SYS((129, 138), {pid}, 0, ctypes.create_string_buffer(128)) == 0)",
    "ptrace the parent": "breach(libc.ptrace(16, os.getppid(), 0, 0) == 0)",
    "read the parent with process_vm_readv": (
        "b = ctypes.create_string_buffer(8)\nv = (ctypes.c_ulong * 2)(ctypes.addressof(b), 8)\n"
        "breach(SYS((310, 270), os.getppid(), v, 1, v, 1, 0) >= 0)"
    ),
    "unpickle a call": "import pickle\nbreach(pickle.loads(b'cposix\\nsystem\\n(Vtrue\\ntR.') == 0)",
}
NETWORK = {
    "connect by TCP": "import socket\ns = socket.create_connection(('127.0.0.1', {port}), 1); breach()",
    "listen": "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); breach()",
    "send by UDP": (
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "breach(s.sendto(b'x', ('127.0.0.1', {port})))"
    ),
    "connect by IPv6": "import socket\nsocket.socket(socket.AF_INET6); breach()",
    "connect to a Unix socket": "import socket\ns = socket.socket(socket.AF_UNIX); s.connect({unix!r}); breach()",
    "connect to an abstract socket": (
        "import socket\ns = socket.socket(socket.AF_UNIX); s.connect('\\0{abstract}'); breach()"
    ),
    "a pair of sockets": "import socket\nsocket.socketpair(); breach()",
    "a raw socket": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW); breach()",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW); breach()",
    "fetch a page": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}/', timeout=1); breach()",
    "io_uring": "breach(SYS(425, 4, ctypes.create_string_buffer(256)) >= 0)",
}
PRIVILEGES = {
    "become root": "os.setuid(0); os.setgroups([]); breach()",
    "take capabilities back": (
        "h = (ctypes.c_uint * 2)(0x20080522, 0)\nd = (ctypes.c_uint * 6)(*[0xffffffff] * 6)\n"
        "breach(libc.capset(h, d) == 0)"
    ),
    "a namespace of its own": "breach(libc.unshare(0x10000000) == 0)",
    "join a namespace": "breach(libc.setns(0, 0) == 0)",
    "raise a limit": ("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)); breach()"),
    "be dumpable": "breach(libc.prctl(4, 1, 0, 0, 0) == 0)",
    "outlive its parent": "breach(libc.prctl(1, 0, 0, 0, 0) == 0)",
    "load BPF": "breach(SYS((321, 280), 0, ctypes.create_string_buffer(64), 64) >= 0)",
    "use the key ring": "breach(SYS((250, 219), 0, -3, 0, 0, 0) >= 0)",
    "watch with perf": "breach(SYS((298, 241), ctypes.create_string_buffer(128), 0, -1, -1, 0) >= 0)",
    "userfaultfd": "breach(SYS((323, 282), 0) >= 0)",
    "shared memory of System V": "breach(SYS((29, 194), 0x1234, 4096, 0o1666) >= 0)",
    "type into the terminal": "import fcntl\nfcntl.ioctl(0, 0x5412, b'x'); breach()",
    "set the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0); breach()",
    "set the host name": "import socket\nsocket.sethostname('breach'); breach()",
    "use 32-bit calls": "breach(SYS(0x40000000 + 41, 2, 1, 0) >= 0)",
}
EXHAUSTION = {
    "use all memory": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "use all shared memory": (
        "import mmap\nm = mmap.mmap(-1, 2 << 30)\nfor i in range(0, len(m), 4096): m[i] = 1\nbreach()"
    ),
    "many threads": (
        "import threading, time\nfor _ in range(20000):\n"
        "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\nbreach()"
    ),
    "flood the output": "while True: os.write(1, b'x' * 65536)",
    "flood the errors": "while True: os.write(2, b'x' * 65536)",
    "flood the report": "while True: os.write(4, b'x' * 65536)",
    "fill the disk": "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(b'x' * (1 << 20))",
    "fill the folder": "n = 0\nwhile True:\n    n += 1\n    open(str(n), 'w').close()",
    "one huge file": "f = open('big', 'wb'); f.truncate(1 << 40); breach()",
    "loop in C": "x = 9 ** 9 ** 9",
    "loop in a regular expression": "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
    "loop and ignore signals": (
        "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\nwhile True: pass"
    ),
    "sleep": "import time\ntime.sleep(10**6)",
    "crash": "ctypes.string_at(0)",
    "recurse": "def f(n): return f(n + 1)\nsys.setrecursionlimit(10**9)\nf(0)",
    "close its own streams": "for fd in range(64):\n    try: os.close(fd)\n    except OSError: pass",
}
EXHAUSTION = {**EXHAUSTION, **DISK, **MEMORY, **THREADS, **HELD}
ATTACKS = {
    **FILES,
    **PROC,
    **PROCESSES,
    **NETWORK,
    **PRIVILEGES,
    **SIGNALS,
    **KERNEL,
    **DENIED,
    **DETOURS,
    **EXHAUSTION,
}
MISTAKES = ("SyntaxError", "NameError", "TypeError", "AttributeError", "KeyError", "ModuleNotFoundError")
# These get through, and do no harm, where nothing confines them: so what stops them is the sandbox.
HARMLESS = (
    "read a secret file",
    "read it by descriptor",
    "read the password file",
    "list the home folder",
    "list the root",
    "read by a symbolic link",
    "read by a hard link",
    "read the packs' answers",
    "change its time",
    "make a named pipe",
    "read its environment in /proc",
    "read the root through /proc",
    "list processes",
    "find a secret in the environment",
    "fork",
    "run a shell",
    "os.system",
    "exec",
    "exec from memory",
    "posix_spawn",
    "multiprocessing",
    "open the parent by pidfd",
    "unpickle a call",
    "connect by TCP",
    "listen",
    "send by UDP",
    "connect to a Unix socket",
    "connect to an abstract socket",
    "a pair of sockets",
    "netlink",
    "shared memory of System V",
    "be dumpable",
    "outlive its parent",
    *attacks_signals.HARMLESS,
    *attacks_detours.HARMLESS,
)
# Under bubblewrap these look round the sandbox's own root, /tmp and processes; test_backends.py asserts what is there.
OWN_NAMESPACE = {
    "list the root", "list other runs' folders", "go up with chdir", "list processes", "read its environment in /proc",
}  # fmt: skip
SHORT = Limits(seconds=2.0, memory=96 << 20, disk=8 << 20)


class Target:
    """A secret file and a secret in the environment, open to this user, and listening sockets."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="clearhead-home-"))
        self.secret = self.home / "secret"
        self.secret.write_text("secret")
        self.home.chmod(self.home.stat().st_mode | stat.S_IRWXO)
        self.secret.chmod(0o666)
        self.listeners = [socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
        self.listeners[0].bind(("127.0.0.1", 0))
        self.listeners[1].bind(str(self.home / "socket"))
        self.abstract = f"clearhead-{os.getpid()}"
        self.listeners[2].bind(f"\0{self.abstract}")
        for one in self.listeners:
            one.listen()
        self.token = "token-" + os.urandom(4).hex()
        os.environ["CLEARHEAD_TEST_SECRET"] = self.token
        self.names = {
            "secret": str(self.secret), "home": str(self.home), "pid": os.getpid(), "token": self.token,
            "port": self.listeners[0].getsockname()[1], "unix": str(self.home / "socket"), "abstract": self.abstract,
            "allowed": 12 << 20, "pack": str(Path(sandbox.__file__).parents[1] / "packs" / "attention" / "pack.toml"),
        }  # fmt: skip

    def attack(self, name: str, backend: str | None = None) -> str:
        """Try one; return "" if it was stopped, else what happened."""
        outcome = sandbox.run(PRELUDE + ATTACKS[name].format(**self.names), limits=SHORT, name=backend)
        if "BREACH" in outcome.stdout or "BREACH" in outcome.stderr:
            return "it got through"
        if outcome.raised and outcome.raised.type in MISTAKES:
            return f"the attack is wrong: {outcome.raised}"
        if outcome.stopped == "start":
            return f"it was not run: {outcome.stderr}"
        if name in EXHAUSTION and outcome.ok:
            return "nothing stopped it"
        if not self.secret.exists() or self.secret.read_text() != "secret":
            return "the secret has changed"
        if sorted(one.name for one in self.home.iterdir()) != ["secret", "socket"]:
            return "something was left behind"
        return ""

    def unconfined(self, name: str) -> str:
        """What the attack prints in a plain Python."""
        program = [sys.executable, "-c", PRELUDE + ATTACKS[name].format(**self.names)]
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=60).stdout

    def close(self) -> None:
        """Take it all down."""
        for one in self.listeners:
            one.close()
        shutil.rmtree(self.home)
        del os.environ["CLEARHEAD_TEST_SECRET"]


def main() -> None:
    target = Target()
    each = int(sys.argv[1]) if len(sys.argv) > 1 else 1  # so that one of so many is tried
    tried = list(ATTACKS)[::each]
    names = list(tried)
    found: dict[str, str] = {}

    def work() -> None:
        while names:
            name = names.pop()
            result = target.attack(name, None)
            if result:
                found[name] = result

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    target.close()
    print(json.dumps({"tried": len(tried), "through": found, "uid": os.getuid()}))


if __name__ == "__main__":
    main()
