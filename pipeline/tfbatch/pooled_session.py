"""A graph that gives the states of a text's tokens, made to give one embedding."""

import numpy as np

from tfbatch.batches import Feeds, Floats
from tfbatch.pooling import Pooling
from tfbatch.session import Session


class PooledSession:
    """A session whose outputs (B, L, D) are pooled on the thread that asks for them; so no more than the
    batches under way is held of what is many times as large as an embedding."""

    def __init__(self, session: Session, pooling: Pooling) -> None:
        self._session = session
        self._pooling = pooling

    def run(self, feeds: Feeds) -> Floats:
        """See `Session`; embeddings (B, D)."""
        return self._pooling.pool(self._session.run(feeds), np.asarray(feeds["attention_mask"]))
