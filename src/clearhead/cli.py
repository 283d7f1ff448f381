"""The one door: `clearhead studio · see · check · doctor …`, each with --help."""


def main() -> None:
    raise SystemExit("clearhead: not yet")
