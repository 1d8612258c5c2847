import numpy as np
import pyarrow as pa
from tfbatch.batching.cells import distinct, is_image, text_bytes


def some_dictionaries(random: np.random.Generator) -> pa.ChunkedArray:
    """Chunks with a dictionary each: entries that no row has, and some that are equal to others."""
    chunks = []
    for _ in range(random.integers(1, 4)):
        entries = ["ab"[random.integers(2)] * int(random.integers(4)) for _ in range(6)]
        rows = [None if random.random() < 0.2 else int(random.integers(6)) for _ in range(random.integers(12))]
        chunks.append(pa.DictionaryArray.from_arrays(pa.array(rows, pa.int32()), pa.array(entries)))
    return pa.chunked_array(chunks).slice(int(random.integers(3)))


def test_a_dictionary_column_has_the_distinct_cells_of_the_same_strings() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        cells = some_dictionaries(random)
        values, value_of_row, errors = distinct(cells)
        plain_values, plain_value_of_row, plain_errors = distinct(cells.cast(pa.string()))
        assert values.to_pylist() == plain_values.to_pylist()
        assert value_of_row.tolist() == plain_value_of_row.tolist()
        assert errors == plain_errors


def test_a_dictionary_of_one_long_entry_is_not_repeated_for_its_rows() -> None:
    rows, entry = 100_000, pa.array(["x" * 1_000_000])
    cells = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), entry)])
    values, value_of_row, _ = distinct(cells)  # 100 GB as strings
    assert values.equals(entry)
    assert not value_of_row.any()


def test_a_picture_is_in_the_one_field_of_its_name() -> None:
    fields = [("bytes", pa.binary()), ("path", pa.string())]
    assert is_image(pa.struct(fields))
    assert not is_image(pa.struct([("bytes", pa.string())]))
    for other in (pa.binary(), pa.string()):  # Parquet lets a name be there twice
        assert not is_image(pa.struct([*fields, ("bytes", other)]))


def test_small_indices_are_for_the_entries_of_a_chunk_not_of_all() -> None:
    texts = [f"film {row}" for row in range(200)]
    kind = pa.dictionary(pa.int8(), pa.string())
    cells = pa.chunked_array([pa.array(texts[:100]).cast(kind), pa.array(texts[100:]).cast(kind)])
    values, value_of_row, errors = distinct(cells)
    assert (values.to_pylist(), value_of_row.tolist(), errors) == (texts, list(range(200)), {})
    assert text_bytes(cells).tolist() == [len(text) for text in texts]


def test_the_bytes_of_each_text_are_counted_in_every_kind_of_column() -> None:
    texts = ["film", None, "", "naïve", "film"]
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        cells = pa.chunked_array([pa.array(texts[:2]).cast(kind), pa.array(texts[2:]).cast(kind)])
        assert text_bytes(cells).tolist() == [4, 0, 0, 6, 4]
    assert text_bytes(pa.chunked_array([], pa.string())).tolist() == []
