"""Command of the same use as the console command; see wavenet.train."""

import sys

from wavenet.train import main

if __name__ == "__main__":
    sys.exit(main())
