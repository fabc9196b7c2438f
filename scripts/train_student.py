"""Command of the same use as the console command; see distill.train."""

import sys

from distill.train import main

if __name__ == "__main__":
    sys.exit(main())
