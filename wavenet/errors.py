"""A user's mistake, and what a command does with it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

DONE, SOME_FAILED, USER_MISTAKE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130


class UserError(ValueError):
    """A user's mistake. The message is one line: the file or setting, what was found, what was expected."""


class Stopped(Exception):
    """A training that its monitor has ended, saved: it cannot mend itself. The message is one line."""


def command(name: str) -> Callable[[Callable[[Sequence[str] | None], int]], Callable[..., int]]:
    """Turn `body(argv) -> exit status` into a console command's main.

    UserError and OSError (a full disk, no permission) become one line on stderr and status 2, a training that its
    monitor stopped one line and status 3; Ctrl-C becomes 130.
    Anything else is our own bug and keeps its traceback.
    """

    def decorate(body: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
        @functools.wraps(body)
        def main(argv: Sequence[str] | None = None) -> int:
            try:
                return body(argv)
            except (UserError, OSError, Stopped) as error:
                print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
                return STOPPED if isinstance(error, Stopped) else USER_MISTAKE
            except KeyboardInterrupt:
                print(f"{name}: interrupted; what was finished before is kept", file=sys.stderr)
                return INTERRUPTED

        return main

    return decorate
