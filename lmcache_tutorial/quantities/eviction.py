"""In which order LMCache 0.5.6 gives up chunks: its eviction policies, as pure bookkeeping.

The chunks of a request are always handed over in the order of the prompt, and a policy takes them in reverse:
so the last chunk of a prompt is given up before its first, and a prompt that is given up in part keeps its
front.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

Key = Hashable
Locked = Callable[[Key], bool]


class Policy(Protocol):
    """What a policy is told of, and what it is asked for (LMCache 0.5.6, ``distributed/eviction.py``)."""

    def reserved(self, keys: Sequence[Key]) -> None:
        """Learn that room was taken for chunks."""

    def created(self, keys: Sequence[Key]) -> None:
        """Learn that chunks can be read from now on."""

    def touched(self, keys: Sequence[Key]) -> None:
        """Learn that chunks were used; a chunk that is not held is passed over."""

    def removed(self, keys: Sequence[Key]) -> None:
        """Learn that chunks are gone."""

    def victims(self, ratio: float, locked: Locked) -> list[Key]:
        """Name the chunks to give up, in their order; the ratio is of all chunks, locked ones included."""

    def order(self) -> tuple[Key, ...]:
        """Return everything that decides later victims, for comparing two states."""

    def copy(self) -> Policy:
        """Return a policy that knows the same and goes its own way."""


class LeastRecentlyUsed:
    """``--eviction-policy LRU`` (LMCache 0.5.6, ``eviction_policy/lru.py``).

    >>> policy = LeastRecentlyUsed()
    >>> policy.created(["a1", "a2", "a3"])
    >>> policy.created(["b1", "b2"])
    >>> policy.victims(0.4, locked=lambda key: False)  # two of five: the tail of the older prompt
    ['a3', 'a2']
    >>> policy.touched(["a1", "a2", "a3"])
    >>> policy.victims(0.4, locked=lambda key: key == "b2")
    ['b1', 'a3']
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[Key, None] = OrderedDict()

    def reserved(self, keys: Sequence[Key]) -> None:
        """Count a reservation as a use."""
        self.created(keys)

    def created(self, keys: Sequence[Key]) -> None:
        """Move chunks behind all others."""
        for key in reversed(keys):
            self._keys[key] = None
            self._keys.move_to_end(key)

    def touched(self, keys: Sequence[Key]) -> None:
        """Move the chunks that are held behind all others."""
        self.created([key for key in keys if key in self._keys])

    def removed(self, keys: Sequence[Key]) -> None:
        """Forget chunks."""
        for key in keys:
            self._keys.pop(key, None)

    def victims(self, ratio: float, locked: Locked) -> list[Key]:
        """Name the chunks that were not used for the longest time."""
        free = (key for key in self._keys if not locked(key))
        return _first(free, _share(len(self._keys), ratio))

    def order(self) -> tuple[Key, ...]:
        """Return the chunks, the next victim first."""
        return tuple(self._keys)

    def copy(self) -> LeastRecentlyUsed:
        """Return a policy that knows the same and goes its own way."""
        other = LeastRecentlyUsed()
        other._keys = self._keys.copy()
        return other


class Never:
    """``--eviction-policy noop``: nothing is given up, and what finds no room is not stored."""

    def reserved(self, keys: Sequence[Key]) -> None:
        """Do nothing."""

    def created(self, keys: Sequence[Key]) -> None:
        """Do nothing."""

    def touched(self, keys: Sequence[Key]) -> None:
        """Do nothing."""

    def removed(self, keys: Sequence[Key]) -> None:
        """Do nothing."""

    def victims(self, ratio: float, locked: Locked) -> list[Key]:
        """Name nothing."""
        return []

    def order(self) -> tuple[Key, ...]:
        """Return nothing."""
        return ()

    def copy(self) -> Never:
        """Return another one."""
        return Never()


class Adaptive:
    """``--eviction-policy ARC`` (LMCache 0.5.6, ``eviction_policy/arc.py``): chunks used once, or again.

    The server touches every chunk of a request when the request ends, also those that it has just stored. So
    for requests that come one after the other every chunk counts as used again by the end of its first
    request, and the victims are those of :class:`LeastRecentlyUsed`.
    """

    def __init__(self) -> None:
        self._once: OrderedDict[Key, None] = OrderedDict()
        self._again: OrderedDict[Key, None] = OrderedDict()
        self._gone_once: OrderedDict[Key, None] = OrderedDict()
        self._gone_again: OrderedDict[Key, None] = OrderedDict()
        self._reserved: set[Key] = set()
        self._chosen: set[Key] = set()
        self._wanted_once = 0.0  # how many chunks used once it aims at: it grows when one of them comes back
        self._most = 0

    def reserved(self, keys: Sequence[Key]) -> None:
        """Take chunks as used once, whatever they were before."""
        for key in reversed(keys):
            self._chosen.discard(key)
            self._reserved.add(key)
            self._adapt(key)
            self._drop(key)
            self._once[key] = None
            self._trim()

    def created(self, keys: Sequence[Key]) -> None:
        """Leave a chunk that was reserved where it is, and take any other as used."""
        for key in reversed(keys):
            self._chosen.discard(key)
            if key in self._reserved:
                self._reserved.remove(key)
                continue
            known = any(key in part for part in (self._once, self._again, self._gone_once, self._gone_again))
            self._adapt(key)
            self._drop(key)
            (self._again if known else self._once)[key] = None
            self._trim()

    def touched(self, keys: Sequence[Key]) -> None:
        """Take chunks that are held as used again."""
        for key in reversed(keys):
            if key in self._once or key in self._again:
                self._once.pop(key, None)
                self._again[key] = None
                self._again.move_to_end(key)

    def removed(self, keys: Sequence[Key]) -> None:
        """Remember chunks that were given up by choice, and forget the others."""
        for key in keys:
            once, again = key in self._once, key in self._again
            self._drop(key)
            if key in self._chosen and once:
                self._gone_once[key] = None
            elif key in self._chosen and again:
                self._gone_again[key] = None
            self._reserved.discard(key)
            self._chosen.discard(key)
        self._trim()

    def victims(self, ratio: float, locked: Locked) -> list[Key]:
        """Name chunks used once while there are as many as are wanted, else chunks used again."""
        self._trim()
        self._wanted_once = min(self._wanted_once, float(self._most))
        once = [key for key in self._once if not locked(key)]
        again = [key for key in self._again if not locked(key)]
        share, held, found = _share(self._held(), ratio), len(self._once), list[Key]()
        while len(found) < share and (once or again):
            from_once = bool(once) and (held >= int(self._wanted_once) or not again)
            found.append((once if from_once else again).pop(0))
            held -= from_once
        self._chosen.update(found)
        return found

    def order(self) -> tuple[Key, ...]:
        """Return its four lists and what it aims at."""
        lists = (self._once, self._again, self._gone_once, self._gone_again)
        return (*map(tuple, lists), self._wanted_once, self._most)

    def copy(self) -> Adaptive:
        """Return a policy that knows the same and goes its own way."""
        other = Adaptive()
        other._once, other._again = self._once.copy(), self._again.copy()
        other._gone_once, other._gone_again = self._gone_once.copy(), self._gone_again.copy()
        other._reserved, other._chosen = self._reserved.copy(), self._chosen.copy()
        other._wanted_once, other._most = self._wanted_once, self._most
        return other

    def _adapt(self, key: Key) -> None:
        once, again = len(self._gone_once), len(self._gone_again)
        if key in self._gone_once:
            self._wanted_once = min(self._most, self._wanted_once + max(1.0, again / once))
        elif key in self._gone_again:
            self._wanted_once = max(0.0, self._wanted_once - max(1.0, once / again))

    def _drop(self, key: Key) -> None:
        for part in (self._once, self._again, self._gone_once, self._gone_again):
            part.pop(key, None)

    def _held(self) -> int:
        return len(self._once) + len(self._again)

    def _trim(self) -> None:
        self._most = max(self._most, self._held())
        while self._gone_once and len(self._once) + len(self._gone_once) > self._most:
            self._gone_once.popitem(last=False)
        while self._held() + len(self._gone_once) + len(self._gone_again) > 2 * self._most:
            gone = self._gone_again or self._gone_once
            if not gone:
                break
            gone.popitem(last=False)


POLICIES: dict[str, Callable[[], Policy]] = {
    "LRU": LeastRecentlyUsed,
    "ARC": Adaptive,
    # IsolatedLRU wants to be asked for one salt; the memory's thread asks for none, and ends with an error at
    # its first full memory. Nothing is given up from then on.
    "IsolatedLRU": Never,
    "noop": Never,
}
"""What ``--eviction-policy`` may say -> how LMCache's memory then gives up chunks."""


def _share(held: int, ratio: float) -> int:
    """Count how many chunks one round gives up: a share of the chunks, not of the bytes, and at least one."""
    ratio = max(0.0, min(1.0, ratio))
    return max(int(held * ratio), int(ratio > 0 and held > 0))


def _first(keys: Iterator[Key], count: int) -> list[Key]:
    return [key for _, key in zip(range(count), keys, strict=False)]
