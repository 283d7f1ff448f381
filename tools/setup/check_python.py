"""Stop early, and say what to do, if Python is too old or has no venv."""

import importlib.util
import sys

if sys.version_info < (3, 11):
    sys.exit(
        f"setup: Python {sys.version.split()[0]} is too old; 3.11 or newer is needed. Try: make PYTHON=python3.12 setup"
    )
if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    sys.exit("setup: this Python has no venv. On Debian or Ubuntu: apt-get install python3-venv")
