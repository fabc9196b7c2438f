"""README's results from a demo run; see distill.results."""

import sys

from distill.results import main

if __name__ == "__main__":
    sys.exit(main())
