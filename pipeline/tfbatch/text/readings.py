"""Long texts read to their end, for tasks that say something of each token: no text is cut, one longer
than an input is read in windows that overlap."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tfbatch.batches import Feeds, Indices, Work
from tfbatch.bundle import Bundle
from tfbatch.results import Floats
from tfbatch.text.model_inputs import Inputs
from tfbatch.text.tokens import Frame, Tokens


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A text on its way through the model.

    `windows` say which of its `tokens` go into each input, `frame` what is around them there;
    `outputs` holds what is kept of each window, in order, None until it has been computed.
    """

    text: str
    tokens: Tokens
    frame: Frame
    windows: list[slice]
    outputs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outputs.extend([None] * len(self.windows))

    def ids(self, index: int) -> Indices:
        """The token ids (L,) of the input that a window is."""
        return self.frame.around(self.tokens.ids[self.windows[index]])

    def length(self, index: int) -> int:
        """Their number."""
        return self.frame.size + int(self.windows[index].stop - self.windows[index].start)

    def owned(self, index: int) -> slice:
        """The tokens that a window speaks for: of two windows that see a token it is the one in which
        it is farther from the edge. An end of the text is no edge."""
        window = self.windows[index]
        start = 0 if index == 0 else self._middle(index - 1)
        stop = window.stop if index == len(self.windows) - 1 else self._middle(index)
        return slice(start, stop)

    def _middle(self, index: int) -> int:
        """Of what a window shares with the next one."""
        return int(self.windows[index].stop + self.windows[index + 1].start) // 2


Keep = Callable[[Reading, int, Floats], Any]


def read(readings: list[Reading], result_of_row: Indices, errors: dict[int, str], bundle: Bundle, keep: Keep) -> Work:
    """Work whose results are the readings.

    `keep` is given a reading, the number of a window and what came out of it, (L, ...) for the
    tokens of the input, and returns what is to stay in `outputs`. Inputs are made of their text's
    tokens when their batch is, so that a text in many windows is not held many times.
    """
    inputs = [(reading, window) for reading in readings for window in range(len(reading.windows))]
    counts = np.array([len(reading.windows) for reading in readings], np.int64)

    def collate(indices: Indices, length: int) -> Feeds:
        batch = [inputs[index] for index in indices.tolist()]
        ids = [reading.ids(window) for reading, window in batch]
        types = [reading.frame.types(len(one)) for one, (reading, _) in zip(ids, batch, strict=True)]
        return Inputs(ids, types, bundle).collate(np.arange(len(ids)), length)

    def receive(indices: Indices, outputs: Floats) -> None:
        for index, output in zip(indices.tolist(), outputs, strict=True):
            reading, window = inputs[index]
            reading.outputs[window] = keep(reading, window, output)

    return Work(
        lengths=np.array([reading.length(window) for reading, window in inputs], np.int64),
        groups=np.zeros(len(inputs), np.int64),
        result_of_input=np.repeat(np.arange(len(readings)), counts),
        result_of_row=result_of_row,
        results=list(readings),
        errors=errors,
        collate=collate,
        receive=receive,
    )
