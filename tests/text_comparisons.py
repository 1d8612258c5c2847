"""What each task of texts is held to: a table made of real texts, the words of its run, and the Hub's own
answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from text_checkpoints import LONGEST, ROWS

CHOICES = ["a good film", "food", "war"]


@dataclass(frozen=True)
class Comparison:
    """`make` turns texts and the checkpoint's tokenizer into the input; `check` holds the output to the Hub.
    `words` are what a run is told of the input, `samples` what export is."""

    check: Callable[[pa.Table, Path], None]
    make: Callable[[list[str], Any], pa.Table] = lambda texts, _: pa.table({"text": texts})
    words: tuple[str, ...] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)


def pipeline_of(task: str, checkpoint: Path, **more: Any) -> Any:
    from transformers import pipeline

    return pipeline(task, model=str(checkpoint), device="cpu", **more)


def check_labels(found: pa.Table, checkpoint: Path) -> None:
    """The pipeline's labels, its scores within 1e-4."""
    reference = pipeline_of("text-classification", checkpoint)
    expected = reference(found["text"].to_pylist(), truncation=True, max_length=LONGEST)
    assert found["predicted_label"].to_pylist() == [row["label"] for row in expected]
    assert np.ptp(found["predicted_score"]) > 0.05  # texts matter
    np.testing.assert_allclose(found["predicted_score"], [row["score"] for row in expected], atol=1e-4)


@torch.inference_mode()
def check_embeddings(found: pa.Table, checkpoint: Path) -> None:
    """A cosine of 0.9999 or more with the mean of the states, one text at a time."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    for embedding, text in zip(found["embedding"].to_pylist(), found["text"].to_pylist(), strict=True):
        inputs = tokenizer(text, truncation=True, max_length=LONGEST, return_tensors="pt")
        states = model(**inputs).last_hidden_state.mean(1)[0]
        assert torch.nn.functional.cosine_similarity(torch.tensor(embedding), states, dim=0) >= 0.9999


class ByHand:
    """What the Hub's pipeline did up to transformers 4: on each window a softmax over the context's
    tokens and the first one, products of starts and ends in order, and the largest of all windows."""

    def __init__(self, checkpoint: Path, length: int) -> None:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.model = AutoModelForQuestionAnswering.from_pretrained(checkpoint).eval()
        self.length = length

    def answer(self, question: str, context: str, longest: int) -> tuple[dict[str, Any], float]:
        """The best answer, and the score of there being none."""
        found = self.tokenizer(
            question, context, truncation="only_second", max_length=self.length, stride=self.length // 2,
            return_overflowing_tokens=True,
        )  # fmt: skip
        answers, none = [], 1.0
        for window, encoding in enumerate(found.encodings):
            names = set(self.tokenizer.model_input_names) & set(found)
            inputs = {name: torch.tensor([found[name][window]]) for name in names}
            with torch.inference_mode():
                output = self.model(**inputs)
            is_open = torch.tensor([part == 1 for part in encoding.sequence_ids])
            is_open[0] = True
            starts, ends = (
                torch.softmax(logits[0].masked_fill(~is_open, -10000), 0)
                for logits in (output.start_logits, output.end_logits)
            )
            none = min(none, float(starts[0] * ends[0]))
            starts[0] = ends[0] = 0
            scores = torch.tril(torch.triu(starts[:, None] * ends), longest - 1)
            first, last = divmod(int(scores.argmax()), len(ends))
            start = encoding.word_to_chars(encoding.token_to_word(first), 1)[0]
            end = encoding.word_to_chars(encoding.token_to_word(last), 1)[1]
            answers.append({"score": float(scores.max()), "start": start, "end": end})
        return max(answers, key=lambda answer: answer["score"]), none


def pairs(texts: list[str], _: Any) -> pa.Table:
    return pa.table({"query": texts[:ROWS], "passage": texts[:ROWS][::-1]})


def check_similarity(found: pa.Table, checkpoint: Path) -> None:
    score = pipeline_of("text-classification", checkpoint)
    asked = zip(found["query"].to_pylist(), found["passage"].to_pylist(), strict=True)
    expected = [score({"text": one, "text_pair": two}, truncation=True)["score"] for one, two in asked]
    assert np.ptp(found["similarity"]) > 0.05
    np.testing.assert_allclose(found["similarity"], expected, atol=1e-4)


def check_choices(found: pa.Table, checkpoint: Path) -> None:
    choose = pipeline_of("zero-shot-classification", checkpoint)
    for row, expected in zip(found.to_pylist(), choose(found["text"].to_pylist(), CHOICES), strict=True):
        scores = {scored["label"]: scored["score"] for scored in row["predicted_scores"]}
        np.testing.assert_allclose([scores[label] for label in expected["labels"]], expected["scores"], atol=1e-4)


def with_masks(texts: list[str], tokenizer: Any) -> pa.Table:
    """A word of each text, its third, gives way to a mask."""
    words = [text.split() for text in texts[:ROWS]]
    masked = [[*some[:2], tokenizer.mask_token, *some[3:]] for some in words if len(some) > 3]
    return pa.table({"text": [" ".join(some) for some in masked]})


def check_fillings(found: pa.Table, checkpoint: Path) -> None:
    fill = pipeline_of("fill-mask", checkpoint, top_k=3)
    for row, expected in zip(found.to_pylist(), fill(found["text"].to_pylist()), strict=True):
        (candidates,) = row["candidates"]
        assert [one["token"] for one in candidates] == [one["token_str"] for one in expected]
        np.testing.assert_allclose([one["score"] for one in candidates], [one["score"] for one in expected], atol=1e-4)


def check_entities(found: pa.Table, checkpoint: Path) -> None:
    """Texts of one window, which is all that the pipeline reads."""
    name = pipeline_of("token-classification", checkpoint, aggregation_strategy="simple")
    for text, entities in zip(found["text"].to_pylist(), found["entities"].to_pylist(), strict=True):
        if len(name.tokenizer(text)["input_ids"]) > LONGEST:
            continue
        expected = name(text)
        assert [one["entity"] for one in entities] == [one["entity_group"] for one in expected]
        for place in ("start", "end"):
            assert [one[place] for one in entities] == [one[place] for one in expected]
        np.testing.assert_allclose([one["score"] for one in entities], [one["score"] for one in expected], atol=1e-4)


def questions(texts: list[str], _: Any) -> pa.Table:
    return pa.table({"context": texts[:ROWS], "question": [" ".join(text.split()[:8]) for text in texts[:ROWS][::-1]]})


def check_answers(found: pa.Table, checkpoint: Path) -> None:
    reference = ByHand(checkpoint, LONGEST)
    for row in found.to_pylist():
        expected, _ = reference.answer(row["question"], row["context"], 15)
        assert (row["answer_start"], row["answer_end"]) == (expected["start"], expected["end"])
        assert row["answer"] == row["context"][row["answer_start"] : row["answer_end"]]
        assert abs(row["answer_score"] - expected["score"]) < 1e-4


COMPARISONS = {
    "feature-extraction": Comparison(check_embeddings),
    "fill-mask": Comparison(check_fillings, with_masks, ("--top-k", "3")),
    "question-answering": Comparison(check_answers, questions, ("--input-column", "context")),
    "sentence-similarity": Comparison(
        check_similarity,
        pairs,
        ("--input-column", "query", "--text-pair-column", "passage"),
        {"samples_column": "query", "samples_pair_column": "passage"},
    ),
    "text-classification": Comparison(check_labels),
    "token-classification": Comparison(check_entities),
    "zero-shot-classification": Comparison(
        check_choices,
        lambda texts, _: pa.table({"text": texts[:ROWS]}),
        ("--labels", ",".join(CHOICES), "--all-scores"),
        {"samples_labels": tuple(CHOICES)},
    ),
}
