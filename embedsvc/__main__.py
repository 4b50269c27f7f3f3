"""`python -m embedsvc` is `embedsvc`."""

import gc
import os
import sys


def main() -> int:
    """Run the command line. Ctrl-C ends it quietly, even while modules are imported."""
    gc.disable()  # `cli` enables it once all is imported, of which nothing is garbage
    # Each batch has a core of its own, so OpenBLAS need not start threads when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from embedsvc import cli

        return cli.main()
    except KeyboardInterrupt:
        from embedsvc.exits import EXIT_INTERRUPTED

        return EXIT_INTERRUPTED
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
