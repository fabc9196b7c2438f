"""Command of the same use as the console command; see distill.benchmark."""

import sys

from distill.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
