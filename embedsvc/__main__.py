"""`python -m embedsvc` is `embedsvc`."""

from embedsvc.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
