"""The peak memory of this process, which Linux counts and lets a process reset."""

from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak() -> int | None:
    """Reset the peak to the bytes held now, and return these; None if the system does not let a process do so."""
    try:
        _RESET.write_text("5")
    except OSError:
        return None
    return peak()


def peak() -> int:
    """The most bytes that were held since the last reset, or since the start."""
    size = listed(_STATUS, "VmHWM")
    if size is None:
        raise SystemExit("bench: the peak of a process is in /proc/self/status, which only Linux has.")
    return size


def listed(path: Path, name: str) -> int | None:
    """The bytes in the named line of a file of the system; None if there is no such file or line."""
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    return None
