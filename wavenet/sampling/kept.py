"""What was made for a model's last signals, kept for its next: composing and recording take longer than short ones."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from torch import nn

from wavenet.fingerprint import fingerprint

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """Things made of a module's weights, by a key of whatever else they hang on; the `most` used last of each module.

    They go with the module, which they must not refer to, and when its weights change.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: weakref.WeakKeyDictionary[nn.Module, tuple[object, OrderedDict[Hashable, Thing]]]
        self._kept = weakref.WeakKeyDictionary()

    @contextmanager
    def borrowed(self, module: nn.Module, key: Hashable, make: Callable[[], Thing]) -> Iterator[Thing]:
        """The thing of this key, made where there is none, for one user at a time.

        A second one meanwhile (another thread) has its own made, and what was in use when an error came is not kept.
        """
        now = fingerprint(module)
        if module not in self._kept or self._kept[module][0] != now:
            self._kept[module] = now, OrderedDict()
        mine = self._kept[module][1]
        thing = mine.pop(key, None)
        if thing is None:
            thing = make()
        yield thing
        mine[key] = thing
        while len(mine) > self._most:
            mine.popitem(last=False)
