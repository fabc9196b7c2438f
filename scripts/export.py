"""Command of the same use as the console command; see distill.export."""

import sys

from distill.export import main

if __name__ == "__main__":
    sys.exit(main())
