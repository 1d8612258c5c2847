"""Labels that a run is told: their texts become embeddings once, which every row is held against."""

from threading import Lock

import numpy as np
import pyarrow as pa

from tfbatch.batches import Floats, cut
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.device import find_device, open_session
from tfbatch.errors import UsageError
from tfbatch.machine import available_threads
from tfbatch.stages import overlap
from tfbatch.text import TextInput

SIDE_GRAPH = "text"


class Labels:
    """The names of `--labels`, and the texts that `--label-template` makes of them."""

    def __init__(self, bundle: Bundle, config: RunConfig) -> None:
        self.names = checked_names(config.labels)
        self._bundle = bundle
        self._threads = config.threads or available_threads()
        self._texts = fill(config.label_template, self.names)
        self._input = TextInput(bundle, None, bundle.side_graph(SIDE_GRAPH).inputs)
        self._refuse_alike()
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
        work = self._input.prepare(pa.chunked_array([self._texts], pa.string()))
        batches = cut(work.lengths, work.groups, device.batch_tokens)

        def run(index: int) -> Floats:
            batch = batches[index]
            return session.run(work.collate(batch.inputs, batch.length))

        computed = overlap(run, range(len(batches)), workers=self._threads, ahead=self._threads)
        for batch, outputs in zip(batches, computed, strict=True):
            work.receive(batch.inputs, outputs)
        embeddings: Floats = np.stack(work.results)
        return embeddings

    def _refuse_alike(self) -> None:
        """Refuse labels whose texts are the same to the model: it may know no capitals, or some letter
        of neither, or they differ where they are cut."""
        seen: dict[bytes, str] = {}
        for name, tokens in zip(self.names, self._input.encode(self._texts), strict=True):
            if (other := seen.setdefault(tokens.tobytes(), name)) != name:
                raise UsageError(
                    f"--labels: {other} and {name} are the same to this model, which reads the same tokens"
                )


def checked_names(labels: tuple[str, ...] | None) -> list[str]:
    """The labels as they are, each once.

    Raises:
        UsageError: there are none, one is empty or one is there twice.
    """
    if not labels:
        raise UsageError("this model is for any labels: say which, as in --labels 'a cat,a dog'")
    if not all(map(str.strip, labels)):
        raise UsageError(f"--labels has an empty label: {', '.join(map(repr, labels))}")
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        raise UsageError(f"--labels has {', '.join(twice)} more than once")
    return list(labels)


def fill(template: str, names: list[str]) -> list[str]:
    """A text for each label, as `str.format` makes it.

    Raises:
        UsageError: the template has no place for a label, or another one.
    """
    try:
        texts = [template.format(name) for name in names]
    except (LookupError, ValueError, AttributeError) as error:
        raise UsageError(f"--label-template {template!r} is no text with one {{}}: {error}") from error
    if any(name not in text for name, text in zip(names, texts, strict=True)):
        raise UsageError(f"--label-template {template!r} has no {{}}, where the label is put")
    return texts
