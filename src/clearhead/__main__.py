"""The program that `clearhead` and `python -m clearhead` run."""

import os
import sys

STOPPED = 130  # as in clearhead/cli/exit_status.py, which is not imported yet when it is needed here


def main() -> None:
    """Run the command. Ctrl-C ends it while its libraries are imported too, which is most of the time of `--help`."""
    try:
        import signal

        with_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if with_default:  # else a shell runs it in the background, and Ctrl-C is not for it
            signal.signal(signal.SIGINT, _stop)
    except KeyboardInterrupt:
        _stop()
    from clearhead.errors import ExtraError

    try:
        from clearhead import cli
    except ExtraError as error:
        sys.stderr.write(f"clearhead: {error}\n")
        raise SystemExit(2) from None
    if with_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


def _stop(*_signal: object) -> None:
    """End the process at once: raised during an import, KeyboardInterrupt may be caught there or printed."""
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(STOPPED)


if __name__ == "__main__":
    main()
