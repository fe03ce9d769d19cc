"""``python -m benchmarks``; a worker process imports this file too, so it loads nothing of the package."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
