"""What a user should know once, and no result holds."""

from __future__ import annotations

import functools
import sys


@functools.cache
def announce(line: str) -> None:
    """On stderr, each line once."""
    print(line, file=sys.stderr)
