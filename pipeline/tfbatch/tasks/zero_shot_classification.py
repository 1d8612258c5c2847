"""One label for each text, of labels that are said at run (Yin et al., 2019).

Each label is put into a sentence, and a model of entailment (NLI) is asked whether the text implies it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from tfbatch.batches import Indices, Window, Work, evenly
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, UsageError
from tfbatch.predictions.candidates import checked_names, fill
from tfbatch.predictions.scores import SCORE_OPTIONS, Scores, score_columns, sigmoid
from tfbatch.results import Floats
from tfbatch.tasks._text import TextTask
from tfbatch.text.model_inputs import Inputs, count_rows, distinct_texts
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.tokens import Flags, Frame, Ids

TEMPLATE = "This example is {}."


class ZeroShotClassification(TextTask):
    """An input for each text and label; a result is the logits (labels, classes) of one text.

    Scores are a softmax over the labels' entailment; with `--multi-label`, or one label, entailment
    against contradiction for each.
    """

    side_columns: ClassVar[dict[str, str]] = {}
    options: ClassVar[tuple[str, ...]] = ("labels", "label_template", "multi_label", "max_length", *SCORE_OPTIONS)

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._column, self._bundle = column, bundle
        names = checked_names(config.labels)
        self._texts = fill(config.label_template or TEMPLATE, names)
        self._tokenizer = Tokenizer(bundle, config.max_length)
        self._frames = [self._tokenizer.frame(second=text) for text in self._texts]
        self._refuse_long()
        self._entailment, self._contradiction = meaning_of_logits(f"bundle {bundle.path}", bundle.manifest.labels)
        self._by_itself = config.multi_label or len(names) == 1
        self._scores = Scores(names, "none" if self._by_itself else "softmax", config)

    @staticmethod
    def columns(config: RunConfig, _: Bundle | None = None) -> pa.Schema:
        return score_columns(config)

    def weigh(self, window: Window) -> Indices:
        """A text, and its tokens once for each label."""
        return evenly(window) + 2 * len(self._texts) * evenly(window.only([self._column]))

    def prepare(self, window: Window) -> Work:
        texts, result_of_row, errors = distinct_texts(window.rows.column(self._column))
        count, labels = len(texts), len(self._texts)
        tokens, is_cut = self._tokens(texts)
        ids = [frame.around(some[: self._place(frame)]) for some in tokens for frame in self._frames]
        types = [frame.types(len(one)) for one, frame in zip(ids, self._frames * count, strict=True)]
        inputs = Inputs(ids, types, self._bundle)
        results: list[Any] = [np.zeros((labels, len(self._bundle.manifest.labels)), np.float32) for _ in range(count)]

        def receive(indices: Indices, outputs: Floats) -> None:
            for index, logits in zip(indices.tolist(), outputs, strict=True):
                results[index // labels][index % labels] = logits

        return Work(
            lengths=inputs.lengths,
            groups=np.zeros(count * labels, np.int64),
            result_of_input=np.repeat(np.arange(count), labels),
            result_of_row=result_of_row,
            results=results,
            errors=errors,
            collate=inputs.collate,
            receive=receive,
            truncated=count_rows(is_cut, result_of_row),
        )

    def _tokens(self, texts: list[str]) -> tuple[list[Ids], Flags]:
        """The tokens of each text, as many as an input may hold, and whether a label leaves no place for some."""
        alone, least = self._tokenizer.frame(), min(map(self._place, self._frames))
        encoded = self._tokenizer.encode(texts)
        tokens = [ids[len(alone.before) : len(ids) - len(alone.after)] for ids in encoded.ids]
        return tokens, encoded.is_cut | np.array([len(some) > least for some in tokens], bool)

    def _place(self, frame: Frame) -> int:
        """How many tokens of a text go in beside a label."""
        return self._tokenizer.max_length - frame.size

    def finish(self, results: Sequence[Any]) -> list[pa.Array]:
        return self._scores.finish([None if logits is None else self._of_labels(logits) for logits in results])

    def _of_labels(self, logits: Floats) -> Floats:
        """Logits (labels, classes) to what `Scores` takes (labels,)."""
        entailment = logits[:, self._entailment]
        if not self._by_itself:
            return entailment
        return sigmoid(entailment - logits[:, self._contradiction])

    def _refuse_long(self) -> None:
        """Refuse a label whose sentence leaves no place for a text."""
        for text, frame in zip(self._texts, self._frames, strict=True):
            if self._place(frame) < 1:
                raise UsageError(f"the label in {text!r} takes all of the {self._tokenizer.max_length} tokens")


def meaning_of_logits(name: str, labels: Sequence[str]) -> tuple[int, int]:
    """Which of a model's logits stands for entailment, and which for contradiction, as the Hub's pipeline
    finds them by their labels.

    Raises:
        BadConfiguration: none of its labels begins with `entail`.
    """
    entailment = [index for index, label in enumerate(labels) if label.lower().startswith("entail")]
    if not entailment or len(labels) == 1:
        raise BadConfiguration(
            f"{name} has the labels {', '.join(labels)}: none is entailment, by which labels are chosen"
        )
    return entailment[0], -1 if entailment[0] == 0 else 0


TASK = ZeroShotClassification
