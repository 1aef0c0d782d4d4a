"""Starts a worker: `python -m had.sweeps DESCRIPTOR`."""

from had.sweeps.worker import main

if __name__ == "__main__":
    main()
