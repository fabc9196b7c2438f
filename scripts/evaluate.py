"""Command of the same use as the console command; see distill.evaluate."""

import sys

from distill.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
