"""The answer to a question, as it stands in a text."""

from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa

from tfbatch.batches import Window, Work
from tfbatch.batching.cells import distinct_pairs, keep_valid
from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.predictions.answers import Answers, answer_columns
from tfbatch.tasks._reading import READING_OPTIONS, ReadingTask
from tfbatch.text.model_inputs import distinct_texts
from tfbatch.text.readings import Reading, read
from tfbatch.text.tokenizer import Tokenizer
from tfbatch.text.tokens import Frame, Tokens

LONGEST = 384  # tokens of an input, as in the Hub's pipeline and in most models' training
EMPTY_QUESTION = "empty: there are no words in the question"
EMPTY_TEXT = "empty: there are no words in the text"


class QuestionAnswering(ReadingTask):
    """The question goes before each window of the text, whole; it may take three quarters of an input."""

    side_columns: ClassVar[dict[str, str]] = {"question_column": "text"}
    options: ClassVar[tuple[str, ...]] = (
        "question_column", "handle_impossible", "max_answer_length", *READING_OPTIONS
    )  # fmt: skip

    def __init__(self, bundle: Bundle, config: RunConfig, column: str) -> None:
        self._bundle, self._column, self._stride = bundle, column, config.stride
        self._question_column = config.question_column
        self._tokenizer = Tokenizer(bundle, config.max_length or min(LONGEST, bundle.setting("max_length")))
        self._answers = Answers(config)
        no_question = self._tokenizer.frame("")
        self._least = no_question.size
        self._tokenizer.check_stride(no_question, self._stride)

    @staticmethod
    def columns(_: RunConfig, __: Bundle | None = None) -> pa.Schema:
        return answer_columns()

    def prepare(self, window: Window) -> Work:
        """One reading for each distinct pair; texts and questions are tokenized once each."""
        texts, text_of_row, errors = distinct_texts(window.rows.column(self._column))
        questions, question_of_row, more = distinct_texts(window.rows.column(self._question_column))
        frames, tokens = self._frames(questions), self._tokenizer.read(texts)
        left, right, pair_of_row = distinct_pairs(text_of_row, question_of_row)
        readings: list[Reading | None] = []
        reasons: dict[int, str] = {}
        for text, question in zip(left.tolist(), right.tolist(), strict=True):
            reading = self._read(texts[text], tokens[text], frames[question])
            if isinstance(reading, str):
                reasons[len(readings)] = reading
            readings.append(None if isinstance(reading, str) else reading)
        valid, pair_of_row, errors = keep_valid(readings, reasons, pair_of_row, more | errors)
        return read(valid, pair_of_row, errors, self._bundle, self._answers.keep)

    def finish(self, results: Sequence[Reading | None]) -> list[pa.Array]:
        return self._answers.finish(results)

    def _read(self, text: str, tokens: Tokens, frame: Frame | str) -> Reading | str:
        """A text after a question, or why there can be no answer."""
        if isinstance(frame, str):
            return frame
        if not len(tokens.ids):
            return EMPTY_TEXT
        windows = self._tokenizer.windows(len(tokens.ids), frame, self._stride)
        return Reading(text=text, tokens=tokens, frame=frame, windows=windows)

    def _frames(self, questions: list[str]) -> list[Frame | str]:
        """What stands around a text that each question is asked of, or why it cannot be asked."""
        is_cut = self._tokenizer.encode(questions).is_cut
        return [self._frame(question, is_cut=cut) for question, cut in zip(questions, is_cut.tolist(), strict=True)]

    def _frame(self, question: str, *, is_cut: bool) -> Frame | str:
        longest = self._tokenizer.max_length
        if not is_cut:
            frame = self._tokenizer.frame(question)
            if frame.size == self._least:
                return EMPTY_QUESTION
            place = longest - frame.size
            if place >= longest // 4 and place > (self._stride or 0):
                return frame
        return f"long_question: it leaves too little place for the text among {longest} tokens"


TASK = QuestionAnswering
