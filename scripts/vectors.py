"""Density estimation on vectors: see `distill-vectors --help`."""

import sys

from distill.vectors.train import main

if __name__ == "__main__":
    sys.exit(main())
