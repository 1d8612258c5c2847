"""Labels that a run is told: their texts become embeddings once, which every row is held against."""

from collections.abc import Iterable
from threading import Lock

import numpy as np

from tfbatch.batching.cutting import cut
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.host.machine import available_threads
from tfbatch.predictions.candidates import checked_names, fill
from tfbatch.results import Floats, Rows
from tfbatch.runtimes.device import find_device, open_session
from tfbatch.stages import overlap
from tfbatch.text.model_inputs import Inputs
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.tokens import Ids

SIDE_GRAPH = "text"
TEMPLATE = "This is a photo of {}."


class Labels:
    """The names of `--labels`, and the texts that `--label-template` makes of them."""

    def __init__(self, bundle: Bundle, config: RunConfig) -> None:
        self.names = checked_names(config.labels)
        self._bundle = bundle
        self._threads = config.threads or available_threads()
        self._texts = fill(config.label_template or TEMPLATE, self.names)
        encoded = Tokenizer(bundle).encode(self._texts)
        self._refuse_alike(encoded.ids)
        if encoded.is_cut.any():
            longest = max(self._texts, key=len)
            raise UsageError(f"--labels: {longest!r} is longer than what the model reads of a label")
        self._inputs = Inputs(encoded.ids, encoded.types, bundle, bundle.side_graph(SIDE_GRAPH).inputs)
        self._lock = Lock()
        self._embeddings: Floats | None = None

    def embeddings(self) -> Floats:
        """(labels, D) float32, made when first asked for, by any of several threads, on the processor.

        Raises:
            BadConfiguration: the bundle's graph of texts cannot be used.
        """
        with self._lock:
            if self._embeddings is None:
                self._embeddings = self._embed()
            return self._embeddings

    def _embed(self) -> Floats:
        device = find_device("cpu")
        session = open_session(self._bundle.side_graph_path(SIDE_GRAPH), device)
        lengths = self._inputs.lengths
        batches = cut(lengths, np.zeros_like(lengths), device.batch_tokens)
        embeddings = Rows(len(lengths))

        def run(index: int) -> Floats:
            batch = batches[index]
            return session.run(self._inputs.collate(batch.inputs, batch.length))

        computed = overlap(run, range(len(batches)), workers=self._threads, ahead=self._threads)
        for batch, outputs in zip(batches, computed, strict=True):
            embeddings.put(batch.inputs, outputs)
        return embeddings.array()

    def _refuse_alike(self, encoded: Iterable[Ids]) -> None:
        """Refuse labels whose texts are the same to the model: it may know no capitals, or some letter
        of neither, or they differ where they are cut."""
        seen: dict[bytes, str] = {}
        for name, tokens in zip(self.names, encoded, strict=True):
            if (other := seen.setdefault(tokens.tobytes(), name)) != name:
                raise UsageError(
                    f"--labels: {other} and {name} are the same to this model, which reads the same tokens"
                )
