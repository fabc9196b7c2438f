"""Command of the same use as the console command; see wavenet.pitch.train."""

import sys

from wavenet.pitch.train import main

if __name__ == "__main__":
    sys.exit(main())
