"""Command of the same use as the console command; see distill.ship."""

import sys

from distill.ship import main

if __name__ == "__main__":
    sys.exit(main())
