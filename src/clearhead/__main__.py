"""The program that `clearhead` and `python -m clearhead` run."""

import sys

from clearhead.errors import ExtraError


def main() -> None:
    """Run the command. Importing it takes most of the time of `--help`, so Ctrl-C is handled during the import too."""
    try:
        from clearhead import cli
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None
    except ExtraError as error:
        sys.stderr.write(f"clearhead: {error}\n")
        raise SystemExit(2) from None
    cli.main()


if __name__ == "__main__":
    main()
