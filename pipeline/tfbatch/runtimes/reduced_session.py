"""A graph that gives more than is wanted of it: states of all tokens for one embedding, all logits for the best."""

from tfbatch.batches import Feeds
from tfbatch.results import Floats
from tfbatch.session import Reduction, Session


class ReducedSession:
    """A session whose outputs are reduced on the thread that asks for them; so no more than the batches
    under way is held of what is many times as large."""

    def __init__(self, session: Session, reduction: Reduction) -> None:
        self._session = session
        self._reduction = reduction

    def run(self, feeds: Feeds) -> Floats:
        """See `Session`; what is left of the outputs."""
        return self._reduction.of(self._session.run(feeds), feeds)
