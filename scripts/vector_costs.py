"""Passes and time of MAF and IAF: see `distill-vector-costs --help`."""

import sys

from distill.vectors.costs import main

if __name__ == "__main__":
    sys.exit(main())
