"""Command of the same use as the console command; see distill.synthesize."""

import sys

from distill.synthesize import main

if __name__ == "__main__":
    sys.exit(main())
