"""A coupling flow from recordings: see `distill-train-flow --help`."""

import sys

from distill.coupling.train import main

if __name__ == "__main__":
    sys.exit(main())
