"""Command of the same use as the console command; see distill.phones.train."""

import sys

from distill.phones.train import main

if __name__ == "__main__":
    sys.exit(main())
