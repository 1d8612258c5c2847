"""The input column: which kinds of column a task can read, and its distinct cells."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfbatch.batches import NO_RESULT, Indices

NULL = "null: the cell is null"
NO_BYTES = "null: the cell holds no picture (only embedded bytes are read)"


def is_text(kind: pa.DataType) -> bool:
    """string, large_string, string_view, or a dictionary of them."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_image(kind: pa.DataType) -> bool:
    """Binary, or a struct whose one field `bytes` is: the form in which Hugging Face `datasets` stores images."""
    if pa.types.is_struct(kind):
        return [is_binary(field.type) for field in kind if field.name == "bytes"] == [True]
    return is_binary(kind)


def is_binary(kind: pa.DataType) -> bool:
    """binary, large_binary, binary_view, or a dictionary of them."""
    if pa.types.is_dictionary(kind):
        return is_binary(kind.value_type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_patch_list(kind: pa.DataType) -> bool:
    """A list of booleans or integers, one for each patch of a picture."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(listed and (pa.types.is_boolean(kind.value_type) or pa.types.is_integer(kind.value_type)))


def is_mask(kind: pa.DataType) -> bool:
    """An image, or a list with an entry for each patch."""
    return is_image(kind) or is_patch_list(kind)


KINDS: dict[str, Callable[[pa.DataType], bool]] = {"image": is_image, "text": is_text, "mask": is_mask}


def text_bytes(cells: pa.ChunkedArray) -> Indices:
    """How many bytes the text of each cell (R,) takes; none where it is null."""
    if pa.types.is_dictionary(cells.type):
        column = _in_one_dictionary(cells)
        sizes = np.append(text_bytes(pa.chunked_array([column.dictionary])), 0)
        return np.asarray(sizes[_places(column.indices)])  # NO_RESULT takes the last
    if pa.types.is_string_view(cells.type):
        cells = cells.cast(pa.large_string())
    return np.asarray(pc.binary_length(cells).fill_null(0), np.int64)


def distinct(cells: pa.ChunkedArray) -> tuple[pa.Array, Indices, dict[int, str]]:
    """The distinct values of a column of text or images.

    Returns:
        The values, each once and none of them null; for each row its value's index or NO_RESULT;
        and the reason of each row that has none.
    """
    null = NO_BYTES if pa.types.is_struct(cells.type) else NULL
    if pa.types.is_struct(cells.type):
        cells = pc.struct_field(cells, "bytes")
    if pa.types.is_dictionary(cells.type):
        return _distinct_entries(cells, null)
    if pa.types.is_string_view(cells.type) or pa.types.is_binary_view(cells.type):
        cells = cells.cast(pa.large_string() if is_text(cells.type) else pa.large_binary())
    encoded = cells.combine_chunks().dictionary_encode()
    result_of_row = _places(encoded.indices)
    return encoded.dictionary, result_of_row, _reasons(result_of_row, null)


def distinct_pairs(firsts: Indices, seconds: Indices) -> tuple[Indices, Indices, Indices]:
    """The distinct pairs of two columns (R,) of indices or NO_RESULT, as `distinct` gives them.

    Returns:
        The first and the second index of each pair (P,), neither of them NO_RESULT; and for each row
        its pair or NO_RESULT.
    """
    pair_of_row = np.full(len(firsts), NO_RESULT, np.int64)
    whole = np.flatnonzero((firsts != NO_RESULT) & (seconds != NO_RESULT))
    pairs, pair_of_row[whole] = np.unique(
        np.stack([firsts[whole], seconds[whole]], axis=1), axis=0, return_inverse=True
    )
    return pairs[:, 0], pairs[:, 1], pair_of_row


def _distinct_entries(cells: pa.ChunkedArray, null: str) -> tuple[pa.Array, Indices, dict[int, str]]:
    """`distinct` of a dictionary column: an entry is never repeated for its rows, which could be
    many times as large. Entries may be equal to one another, or no row's; none that Parquet
    holds is null."""
    column = _in_one_dictionary(cells)
    used = column.indices.dictionary_encode()  # in the order in which rows have them
    entries = pa.chunked_array([column.dictionary.take(used.dictionary)])
    values, value_of_entry, _ = distinct(entries)
    value_of_row = np.append(value_of_entry, NO_RESULT)[_places(used.indices)]  # NO_RESULT takes the last
    return values, value_of_row, _reasons(value_of_row, null)


def _in_one_dictionary(cells: pa.ChunkedArray) -> pa.DictionaryArray:
    """A dictionary column in one piece; indices of 8 bits may hold the entries of each chunk, not those of all."""
    wide = cells.cast(pa.dictionary(pa.int32(), cells.type.value_type))
    return wide.unify_dictionaries().combine_chunks()


def _places(indices: pa.Array) -> Indices:
    """Indices as numpy has them, NO_RESULT where they are null."""
    places: Indices = indices.fill_null(NO_RESULT).to_numpy(zero_copy_only=False).astype(np.int64)
    return places


def _reasons(result_of_row: Indices, null: str) -> dict[int, str]:
    return {int(row): null for row in np.flatnonzero(result_of_row == NO_RESULT)}


def keep_valid(
    values: list[Any], reasons: dict[int, str], result_of_row: Indices, errors: dict[int, str]
) -> tuple[list[Any], Indices, dict[int, str]]:
    """Take bad inputs out of `values` and give their reasons to all rows that hold them."""
    if not reasons:
        return values, result_of_row, errors
    kept = [index for index in range(len(values)) if index not in reasons]
    renumbered = np.full(len(values) + 1, NO_RESULT, np.int64)  # the last entry is NO_RESULT's own
    renumbered[kept] = np.arange(len(kept))
    bad = {int(row): reasons[int(index)] for row, index in enumerate(result_of_row) if int(index) in reasons}
    return [values[index] for index in kept], renumbered[result_of_row], errors | bad
