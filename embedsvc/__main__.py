"""`python -m embedsvc` is `embedsvc`."""

import sys


def main() -> int:
    """Run the command line. Ctrl-C ends it quietly, even while modules are imported."""
    try:
        from embedsvc import cli

        return cli.main()
    except KeyboardInterrupt:
        from embedsvc.exits import EXIT_INTERRUPTED

        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
