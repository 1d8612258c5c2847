"""A model's embeddings to the column that holds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tfbatch.bundle import Bundle
from tfbatch.config import RunConfig
from tfbatch.errors import UsageError
from tfbatch.results import Floats, stacked

EMBEDDING_OPTIONS = ("dimensions", "embedding_type")
TOO_LARGE = f"not_finite: a number of the embedding is over {np.finfo(np.float16).max:,.0f}, the most of float16"
TYPES = {"float32": pa.float32(), "float16": pa.float16()}


def embedding_columns(config: RunConfig, bundle: Bundle | None) -> pa.Schema:
    """`embedding`, a list of numbers, as many as the model or `--dimensions` has; none as long as neither is known."""
    width = config.dimensions or (bundle.setting("embedding_width") if bundle else 0)
    return pa.schema([pa.field("embedding", pa.list_(TYPES[config.embedding_type], width))])


class Embeddings:
    """Fills `embedding_columns`.

    The first `--dimensions` of an embedding are one too where the model was trained so (Matryoshka
    representations, Kusupati et al., 2022); what the model has of length one is of length one again.
    """

    def __init__(self, bundle: Bundle, config: RunConfig) -> None:
        self._width = bundle.setting("embedding_width")
        self._kept = config.dimensions or self._width
        if self._kept > self._width:
            raise UsageError(f"--dimensions {self._kept}: embeddings of this model have {self._width}")
        self._type = TYPES[config.embedding_type]
        changes = self._kept < self._width or config.overflow == "stride"  # else the graph's length is kept
        self._normalises = changes and bool(bundle.manifest.settings.get("normalised"))

    @property
    def weight(self) -> int:
        """About how many bytes an embedding takes: as it is computed, at another length, in its rows' order."""
        return 12 * self._width

    def unfit(self, results: Sequence[Floats | None]) -> dict[int, str]:
        """The reason of each result that float16 would make infinite."""
        if self._type != pa.float16():
            return {}
        infinite = np.isinf(self._numbers(results)).any(axis=1)
        return dict.fromkeys(np.flatnonzero(infinite).tolist(), TOO_LARGE)

    def finish(self, results: Sequence[Floats | None]) -> list[pa.Array]:
        """The column of embeddings (D,), one for each result; zeros where there is no result."""
        values = pa.array(self._numbers(results).ravel(), self._type)
        return [pa.FixedSizeListArray.from_arrays(values, self._kept)]

    def _numbers(self, results: Sequence[Floats | None]) -> npt.NDArray[np.floating[Any]]:
        """Embeddings (N, D) as the column has them."""
        kept = stacked(results, self._width)[:, : self._kept]
        if self._normalises:
            kept = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        with np.errstate(over="ignore"):  # see unfit
            numbers: npt.NDArray[np.floating[Any]] = kept.astype(self._type.to_pandas_dtype(), copy=False)
        return numbers
