"""Run the C++ check of the AVX-512 kernels on a machine that has no AVX-512: in Bochs, an emulator of a whole PC.

    python tools/emulate_avx512.py build/emulator --cases 20

Builds native/check.cpp with the avx512 target alone, fetches a Debian kernel and boot loader (`apt-get download`;
nothing is installed), writes a boot CD, and boots it on an emulated Skylake-X. The check's own words come back through
the serial port. Takes some minutes. Needs bochs, g++, apt-get, dpkg and a static busybox (Debian: bochs,
busybox-static), and the Python package pycdlib.
"""

import argparse
import gzip
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

NATIVE = Path(__file__).resolve().parents[1] / "native"
FLAGS = ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
COMMANDS = ("bochs", "g++", "apt-get", "dpkg", "busybox")
APPLETS = ("sh", "mount", "grep", "echo", "poweroff")
DIRECTORY, FILE, DEVICE, LINK = 0o40755, 0o100755, 0o20600, 0o120777
SECONDS = 1800

INIT = """#!/bin/sh
mount -t proc proc /proc
grep -m1 "model name" /proc/cpuinfo
echo "check begins"
/check {cases}
echo "check ended with $?"
poweroff -f
"""

# Bochs' processor says another size of its compacted registers than Linux finds: without them Linux turns on AVX-512.
ISOLINUX = b"""default linux
prompt 0
timeout 1
label linux
 kernel vmlinuz
 append initrd=initrd.gz console=ttyS0 rdinit=/init mitigations=off nokaslr clearcpuid=xsaves,xsavec quiet
"""

# A processor that executes 15 million instructions in a second of its own time: the BIOS counts instructions while it
# waits for the drive, and loses patience at higher numbers.
BOCHS = """config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_skylake_x, count=1, ips=15000000, reset_on_triple_fault=0
clock: sync=none, time0=1
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={folder}/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={folder}/serial.txt
log: {folder}/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
mouse: enabled=0
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
"""


def missing() -> str | None:
    """What this machine lacks, in one line; None if nothing."""
    lacking = [name for name in COMMANDS if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    try:
        import pycdlib  # noqa: F401
    except ImportError:
        return "the Python package pycdlib is not installed"
    return None


def build(folder: Path) -> bytes:
    """The check, with the avx512 target alone, as a static program."""
    (folder / "targets.h").write_text("#define CLEARHEAD_TARGETS(X) X(avx512)\n")
    common = ["g++", "-std=gnu++17", "-Wno-psabi", f"-I{folder}", f"-I{NATIVE}", "-c"]
    # -DPAIRS: bfloat16 as in the target avx512bf16, with float steps for its instruction, which the emulator lacks.
    own = ["-O2", "-ffp-contract=fast", *FLAGS, "-DTARGET=avx512", "-DLANES=16", "-DROWS=8", "-DPAIRS"]
    subprocess.run([*common, *own, NATIVE / "target.cpp", "-o", folder / "target.o"], check=True)
    sources = sorted(path for path in NATIVE.glob("*.cpp") if path.stem not in ("target", "binding"))
    for source in sources:
        subprocess.run([*common, "-O1", source, "-o", folder / f"{source.stem}.o"], check=True)
    objects = [folder / f"{name}.o" for name in ("target", *(source.stem for source in sources))]
    subprocess.run(["g++", "-static", "-s", *objects, "-o", folder / "check"], check=True)
    return (folder / "check").read_bytes()


def fetch(folder: Path) -> Path:
    """Debian's cloud kernel and boot loader, unpacked under `folder`."""
    root = folder / "debian"
    if not root.exists():
        shown = subprocess.run(
            ["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True, check=True
        )
        kernel = next(word for word in shown.stdout.split() if word.startswith("linux-image-") and word[12].isdigit())
        subprocess.run(["apt-get", "download", kernel, "isolinux", "syslinux-common"], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
    return root


def archive(entries: list[tuple[str, int, bytes, tuple[int, int]]]) -> bytes:
    """A cpio archive in the "newc" format, as Linux takes its first file system: (name, mode, data, device)."""
    out = b""
    for number, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], start=1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        head = ("070701" + "".join(f"{field:08X}" for field in fields)).encode() + path
        for part in (head, data):
            out += part + b"\0" * (-len(part) % 4)
    return out


def write_cd(folder: Path, check: bytes, cases: int) -> None:
    """boot.iso: the loader, the kernel, and a first file system of busybox and the check."""
    import pycdlib

    root, busybox = fetch(folder), Path(shutil.which("busybox") or "").read_bytes()
    none = (0, 0)
    entries = [
        *((name, DIRECTORY, b"", none) for name in ("dev", "proc", "bin")),
        ("dev/console", DEVICE, b"", (5, 1)),
        ("bin/busybox", FILE, busybox, none),
        ("init", FILE, INIT.format(cases=cases).encode(), none),
        ("check", FILE, check, none),
        *((f"bin/{name}", LINK, b"busybox", none) for name in APPLETS),
    ]
    files = {
        "ISOLINUX.BIN": (root / "usr/lib/ISOLINUX/isolinux.bin").read_bytes(),
        "LDLINUX.C32": (root / "usr/lib/syslinux/modules/bios/ldlinux.c32").read_bytes(),
        "ISOLINUX.CFG": ISOLINUX,
        "VMLINUZ.": next((root / "boot").glob("vmlinuz-*")).read_bytes(),
        "INITRD.GZ": gzip.compress(archive(entries)),
    }
    cd = pycdlib.PyCdlib()
    cd.new()
    cd.add_directory("/ISOLINUX")
    for name, data in files.items():
        cd.add_fp(io.BytesIO(data), len(data), f"/ISOLINUX/{name};1")
    cd.add_eltorito("/ISOLINUX/ISOLINUX.BIN;1", "/BOOT.CAT;1", boot_info_table=True, boot_load_size=4)
    cd.write(str(folder / "boot.iso"))
    cd.close()


def boot(folder: Path) -> str:
    """Boot the CD; return what the machine wrote to its serial port, when it is off or after SECONDS."""
    (folder / "bochsrc").write_text(BOCHS.format(folder=folder))
    (folder / "go").write_text("c\n")  # Debian's Bochs starts in its debugger
    serial = folder / "serial.txt"
    serial.unlink(missing_ok=True)
    with (folder / "bochs.out").open("w") as out:
        command = ["bochs", "-q", "-f", folder / "bochsrc", "-rc", folder / "go"]
        # In a group of its own: `bochs` is a script that starts the emulator.
        emulator = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        end = time.monotonic() + SECONDS
        try:
            while emulator.poll() is None and time.monotonic() < end:
                time.sleep(1)
                if serial.exists() and b"check ended" in serial.read_bytes():
                    time.sleep(2)
                    break
        finally:
            if emulator.poll() is None:
                os.killpg(emulator.pid, 9)
            emulator.wait()
    return serial.read_text(errors="replace") if serial.exists() else ""


def run(folder: Path, cases: int) -> str:
    """Build, fetch, boot; what the machine said from the check on."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_cd(folder, build(folder), cases)
    said = boot(folder)
    return said[said.find("model name") :] if "model name" in said else said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to build and what to keep")
    parser.add_argument("--cases", type=int, default=20)
    options = parser.parse_args()
    lacking = missing()
    if lacking:
        print(f"The emulation cannot run here: {lacking}.", file=sys.stderr)
        return 2
    said = run(options.folder, options.cases)
    print(said)
    return 0 if f"target avx512: {options.cases} cases" in said else 1


if __name__ == "__main__":
    sys.exit(main())
