"""Run the C++ check of the AVX-512 kernels on a machine without AVX-512, in Bochs, an emulator of a whole PC.

    python tools/emulate_avx512.py build/emulator --cases 20
    python tools/emulate_avx512.py build/emulator --cases 20 --bochs path/to/bochs-3.0/bochs

Builds native/check.cpp with the avx512 target alone, fetches a Debian kernel and boot loader (`apt-get download`;
nothing is installed), writes a boot CD, and boots it on an emulated Skylake-X. The check's output comes back through
the serial port. This takes some minutes. Needs bochs, g++, apt-get, dpkg and a static busybox (Debian: bochs,
busybox-static), and the Python package pycdlib.

Debian's Bochs has no bfloat16 dot product; Bochs has it from release 3.0 on. To run vdpbf16ps too, build Bochs from
its sources (`configure --enable-cpu-level=6 --enable-x86-64 --enable-avx --enable-evex --with-nogui`) and pass it as
--bochs.
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

# Bochs reports a size of the compacted register state that Linux rejects; without compaction, Linux enables AVX-512.
ISOLINUX = b"""default linux
prompt 0
timeout 1
label linux
 kernel vmlinuz
 append initrd=initrd.gz console=ttyS0 rdinit=/init mitigations=off nokaslr clearcpuid=xsaves,xsavec quiet
"""

# Options of Debian's Bochs, and of release 3.0 built from its sources.
DEBIAN = {
    "display": 'rfb, options="timeout=0"',
    "bios": "/usr/share/bochs/BIOS-bochs-latest",
    "features": "",
    "more": "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy",
}
BUILT = {"display": "nogui", "features": 'add_features="avx512bf16", ', "more": ""}

# The emulated processor executes 15 million instructions per emulated second. The BIOS counts instructions while it
# waits for the drive, and times out at higher numbers.
BOCHS = """config_interface: textconfig
display_library: {display}
memory: guest=512, host=512
romimage: file={bios}
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
cpu: model=corei7_skylake_x, {features}count=1, ips=15000000, reset_on_triple_fault=0
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
{more}
"""


def missing(bochs: Path | None = None) -> str | None:
    """Return what this machine lacks, in one line, or None."""
    if bochs is not None and not bochs.is_file():
        return f"there is no file {bochs}"
    lacking = [name for name in COMMANDS if shutil.which(name) is None and not (bochs and name == "bochs")]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    try:
        import pycdlib  # noqa: F401
    except ImportError:
        return "the Python package pycdlib is not installed"
    return None


def build(folder: Path, dot_products: bool) -> bytes:
    """Build the check with only the avx512 target, as a static program.

    Its bfloat16 is that of the target avx512bf16, with the dot-product instruction or with float steps instead.
    """
    (folder / "targets.h").write_text("#define CLEARHEAD_TARGETS(X) X(avx512)\n")
    common = ["g++", "-std=gnu++17", "-Wno-psabi", f"-I{folder}", f"-I{NATIVE}", "-c"]
    flags = [*FLAGS, "-mavx512bf16"] if dot_products else FLAGS
    needs = ",".join(flag.removeprefix("-m") for flag in flags if "=" not in flag)
    kernels = {"target": ["-DLANES=16", "-DPAIRS"], "target_f64": ["-DLANES=8"]}
    sources = {path.stem: path for path in sorted(NATIVE.rglob("*.cpp")) if path.parent.name != "binding"}
    for name, source in sources.items():
        own = ["-O1"]
        if name in kernels:
            own = ["-O2", "-ffp-contract=fast", *flags, "-DTARGET=avx512", "-DDOUBLES_OF=avx512", "-DROWS=8"]
            own.append(f"-DNEEDS={needs}")
        subprocess.run([*common, *own, *kernels.get(name, []), source, "-o", folder / f"{name}.o"], check=True)
    objects = [folder / f"{name}.o" for name in sources]
    subprocess.run(["g++", "-static", "-s", *objects, "-o", folder / "check"], check=True)
    return (folder / "check").read_bytes()


def fetch(folder: Path) -> Path:
    """Fetch Debian's cloud kernel and boot loader, and unpack them under `folder`."""
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
    """Return a cpio archive in the "newc" format, for Linux's initramfs, of (name, mode, data, device)."""
    out = b""
    for number, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], start=1):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        head = ("070701" + "".join(f"{field:08X}" for field in fields)).encode() + path
        for part in (head, data):
            out += part + b"\0" * (-len(part) % 4)
    return out


def write_cd(folder: Path, check: bytes, cases: int) -> None:
    """Write boot.iso: the loader, the kernel, and an initramfs with busybox and the check."""
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


def boot(folder: Path, bochs: Path | None) -> str:
    """Boot the CD; return the serial port's output when the machine is off, or after SECONDS."""
    settings = DEBIAN if bochs is None else {**BUILT, "bios": bochs.parent / "bios" / "BIOS-bochs-latest"}
    (folder / "bochsrc").write_text(BOCHS.format(folder=folder, **settings))
    (folder / "go").write_text("c\n")  # Debian's Bochs starts in its debugger
    serial = folder / "serial.txt"
    serial.unlink(missing_ok=True)
    with (folder / "bochs.out").open("w") as out:
        command = [bochs or "bochs", "-q", "-f", folder / "bochsrc"] + ([] if bochs else ["-rc", folder / "go"])
        # In its own process group, because `bochs` is a script that starts the emulator.
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


def run(folder: Path, cases: int, bochs: Path | None = None) -> str:
    """Build, fetch and boot; return the machine's output from the check on."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_cd(folder, build(folder, dot_products=bochs is not None), cases)
    said = boot(folder, bochs and bochs.resolve())
    return said[said.find("model name") :] if "model name" in said else said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to build and what to keep")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--bochs", type=Path, help="a Bochs that knows avx512_bf16 (default: Debian's, which does not)")
    options = parser.parse_args()
    lacking = missing(options.bochs)
    if lacking:
        print(f"The emulation cannot run here: {lacking}.", file=sys.stderr)
        return 2
    said = run(options.folder, options.cases, options.bochs)
    print(said)
    return 0 if f"target avx512: {options.cases} cases" in said else 1


if __name__ == "__main__":
    sys.exit(main())
