"""The command `peerwatch`, also as `python -m peerwatch`."""

import sys


def main() -> None:
    """Run the command line. Imports as little as possible first, so that any failing import can be reported."""
    try:
        from peerwatch.cli.main import main as begin  # noqa: PLC0415 (it may fail)
    except MemoryError:
        sys.exit("peerwatch: there is not enough memory; allow more (ulimit -v)")
    begin()


if __name__ == "__main__":
    main()
