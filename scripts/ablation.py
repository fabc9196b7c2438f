"""What each part adds: see `distill-ablate --help`."""

import sys

from distill.ablation import main

if __name__ == "__main__":
    sys.exit(main())
