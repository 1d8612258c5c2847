"""Put beside all-MiniLM-L6-v2 what its publisher has there: how tokens become the embedding of a sentence.

The package that brings the weights leaves these files out. Its embeddings are the mean of the tokens,
of length one; texts are cut at 256 tokens.
"""

import json
from pathlib import Path
from typing import Any

from data import minilm

FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
}


def main(folder: Path) -> None:
    """Write the files."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    print(f"checkpoint of sentence-transformers: {folder}")


if __name__ == "__main__":
    main(minilm())
