"""Whether weights of 24 bits pay here: see `distill-weight-widths --help`."""

import sys

from distill.weight_widths import main

if __name__ == "__main__":
    sys.exit(main())
