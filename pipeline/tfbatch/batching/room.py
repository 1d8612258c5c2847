"""How much of a job is under way at once."""


class Room:
    """How much is on its way through all stages together, in bytes, and what comes next.

    Kept on the one thread that pulls: what is taken in is counted, and let go when it is done with.
    It is full when what comes next has no place; what is larger than all of it comes alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._next = 0

    def take(self, weight: int, then: int) -> None:
        """Count an item; `then` is what the next one weighs."""
        self._held += weight
        self._next = then

    def release(self, weight: int) -> None:
        self._held -= weight

    @property
    def is_full(self) -> bool:
        return self._held + self._next > self._limit
