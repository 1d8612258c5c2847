"""fastembed with a custom model: the graph that sentence-transformers exported, mean pooling, length one."""

import pyarrow as pa

from benchmarks.contenders import Columns, Score
from benchmarks.contenders._text import max_length
from benchmarks.workloads import Model

VENV = "fastembed"
KINDS = ("embedding",)
PRECISION = "fp32"
PREPARED = "sentence-transformers-onnx"
BATCH = 32  # the default, 256, pads more and takes 1.3 times as long


def load(model: Model, threads: int) -> Score:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"local/{model.checkpoint.name}"
    TextEmbedding.add_custom_model(
        name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=384,
        model_file="onnx/model.onnx",
    )
    network = TextEmbedding(name, specific_model_path=str(model.prepared), threads=threads)
    network.model.tokenizer.enable_truncation(max_length(model))  # left alone it cuts them at 128 tokens

    def score(rows: pa.Table) -> Columns:
        return {"embedding": list(network.embed(rows["text"].to_pylist(), batch_size=BATCH))}

    return score
