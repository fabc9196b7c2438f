"""How fast recipes train, and where a step's time goes: see `distill-training-speed --help`."""

import sys

from distill.training_speed import main

if __name__ == "__main__":
    sys.exit(main())
