"""What a program must not inherit from the one before it: text streams, random numbers, torch's settings."""

import random
import sys


def streams() -> None:
    """Fresh text streams over 0, 1 and 2: the worker's own are shared with nobody."""
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


def shuffle(salt: int) -> None:
    """Seed the unseeded differently in each run, so that two runs of a program that forgot its seed disagree."""
    random.seed(salt)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(salt)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(salt)


def settings() -> None:
    """Torch's global settings as they are in a new process."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(False)
        torch.set_printoptions(profile="default")
