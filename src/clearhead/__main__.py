"""What `clearhead` and `python -m clearhead` run."""

import sys


def main() -> None:
    """The command. Ctrl-C is looked after while it is imported, which takes longer than anything else in `--help`."""
    try:
        from clearhead import cli
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise SystemExit(130) from None
    cli.main()


if __name__ == "__main__":
    main()
