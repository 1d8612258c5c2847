"""A graph that gives more than is wanted of it: states of all tokens for one embedding, all logits for the best."""

from collections.abc import Callable

from tfbatch.batches import Feeds, Floats
from tfbatch.session import Session

Reduce = Callable[[Floats, Feeds], Floats]


class ReducedSession:
    """A session whose outputs are reduced on the thread that asks for them; so no more than the batches
    under way is held of what is many times as large."""

    def __init__(self, session: Session, reduce: Reduce) -> None:
        self._session = session
        self._reduce = reduce

    def run(self, feeds: Feeds) -> Floats:
        """See `Session`; what is left of the outputs."""
        return self._reduce(self._session.run(feeds), feeds)
