"""State of ours beside an object of vLLM's, which takes no attributes of ours and must not be kept alive."""

from __future__ import annotations

import weakref
from typing import Any, TypeVar

T = TypeVar("T")


class PerObject(dict[int, T]):
    """By the id of the object; forgotten when that is gone, since another one may get its id.

    `states.get(id(owner)) or meet(owner)` is what a handler pays in every step: a dict's lookup.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        super().__init__()
        self._owners: dict[int, weakref.ref[Any]] = {}

    def keep(self, owner: Any, state: T) -> T:
        """Keep the state of an object for as long as that lives. Raises TypeError where it takes no weak reference."""
        key = id(owner)

        def forget(gone: weakref.ref[Any]) -> None:
            if self._owners.get(key) is gone:
                del self._owners[key]
                self.pop(key, None)

        self._owners[key] = weakref.ref(owner, forget)
        self[key] = state
        return state

    def owner_of(self, key: int) -> Any:
        """The object itself; None if it is gone."""
        owner = self._owners.get(key)
        return None if owner is None else owner()

    def clear(self) -> None:
        """Forget all, as in a forked child."""
        self._owners.clear()
        super().clear()
