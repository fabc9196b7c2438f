"""Every kind of vocoder on one corpus and one budget; see distill.comparison."""

import sys

from distill.comparison import main

if __name__ == "__main__":
    sys.exit(main())
