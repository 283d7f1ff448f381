import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))  # the bench stands beside the package, at the root
