"""How far outputs are from a reference, as it is recorded of each batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 1e-4  # largest absolute difference of logits or normalised pixels, float32
STEP, ALLOWED = 2**-11, 0.03  # of a number in fp16, the most that it is rounded by; of a spread, an error

Outputs = npt.NDArray[np.float32]


def compare(
    found: Outputs, reference: Outputs, *, labels: bool, independent: bool = False, spread: float = 1.0
) -> dict[str, Any]:
    """How far outputs (B, ...) are from a reference; `spread` is that of lone numbers, of which there is no label
    but where labels are `independent`."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return {"max_abs_difference": None, "cosine": 0.0} | ({"label_agreement": 0.0} if labels else {})
    rows, expected = found.reshape(len(found), -1), reference.reshape(len(found), -1)
    is_lone = rows.shape[1] == 1
    record = {
        "max_abs_difference": float(np.abs(rows - expected).max()),
        "cosine": lone_cosine(rows, expected, spread) if is_lone else float(cosines(rows, expected).mean()),
    }
    if labels and independent:
        record["label_agreement"] = shared_labels(rows, expected)
    elif labels and not is_lone:
        record["label_agreement"] = same_label(rows, expected)
    return record


def cosines(rows: Outputs, expected: Outputs) -> Outputs:
    """The cosine of each of two times B rows (B, N)."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~rows.any(1) & ~expected.any(1)
    found: Outputs = np.where(both_zero, 1, (rows * expected).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny))
    return found


def lone_cosine(rows: Outputs, expected: Outputs, spread: float) -> float:
    """In place of a cosine of numbers (B, 1), which have no direction: 1 - e² / 2 for the root mean square e of their
    error, as a share of what all numbers are spread by.

    That is the cosine of vectors of length one that are e apart. Graphs in fp16 came to an e of 0.005 at most, in
    int8 to 0.1; a cosine of 0.9995 allows 0.03, one of 0.99 allows 0.14.
    """
    error = (rows - expected).astype(np.float64) / spread
    return float(1 - (error**2).mean() / 2)


def spread_of(references: Sequence[Outputs], precision: str) -> float:
    """The standard deviation of all numbers of outputs (B, 1), where they are such, or of a single number, which has
    none, its size. In fp16 it is no less than what makes the rounding of the largest an error that is allowed: they
    may be next to the same."""
    lone = [outputs.ravel() for outputs in references if outputs.size == len(outputs)]
    numbers = np.concatenate([np.zeros(0), *lone])
    spread = numbers.std() if len(numbers) > 1 else np.abs(numbers).sum()
    least = np.abs(numbers).max(initial=0) * STEP / ALLOWED if precision == "fp16" else 0
    return max(float(spread), float(least)) or 1.0


def same_label(rows: Outputs, expected: Outputs) -> float:
    """The share of rows (B, N) whose largest number is the expected one's. Where the two best of these are a tie,
    closer than both may be off, either is."""
    chosen = np.take_along_axis(expected, rows.argmax(1)[:, None], axis=1)[:, 0]
    return float((expected.max(1) - chosen <= 2 * TOLERANCE).mean())


def shared_labels(rows: Outputs, expected: Outputs) -> float:
    """Of the labels that either of two times B rows (B, N) has, those whose number is positive, the share that both
    have, in the mean; all of none. Of numbers as near to zero as they may be off either sign is right."""
    has = expected > 0
    found = np.where(np.abs(expected) <= TOLERANCE, has, rows > 0)
    either = (found | has).sum(1)
    return float(np.where(either > 0, (found & has).sum(1) / np.maximum(either, 1), 1).mean())
