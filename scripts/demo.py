"""The whole road in minutes; see distill.demo."""

import sys

from distill.demo import main

if __name__ == "__main__":
    sys.exit(main())
