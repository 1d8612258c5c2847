"""Optimum and sentence-transformers, in an environment of their own (build/interchange), whose versions of
transformers are not this project's.

    python peers.py export TASK CHECKPOINT FOLDER            as `optimum-cli export onnx` does
    python peers.py save TASK CHECKPOINT FOLDER              as ORTModelFor<Task>.save_pretrained does
    python peers.py save_sentences TASK CHECKPOINT FOLDER    as sentence-transformers does with its backend `onnx`
    python peers.py run TASK FOLDER FEEDS OUTPUTS            a folder's outputs (.npy) for model inputs (.npz)
    python peers.py embed BACKEND FOLDER TEXTS OUTPUTS       sentence-transformers' embeddings (.npy) of texts (.json)
"""

import json
import sys
from pathlib import Path
from typing import Any

CLASSES = {
    "feature-extraction": ("ORTModelForFeatureExtraction", "last_hidden_state"),
    "image-classification": ("ORTModelForImageClassification", "logits"),
    "text-classification": ("ORTModelForSequenceClassification", "logits"),
    "token-classification": ("ORTModelForTokenClassification", "logits"),
}


def model_class(task: str) -> Any:
    from optimum import onnxruntime

    return getattr(onnxruntime, CLASSES[task][0])


def export(task: str, checkpoint: str, folder: str) -> None:
    from optimum.exporters.onnx import main_export

    main_export(checkpoint, output=folder, task=task, library_name="transformers")


def save(task: str, checkpoint: str, folder: str) -> None:
    from transformers import AutoImageProcessor, AutoTokenizer

    model_class(task).from_pretrained(checkpoint, export=True).save_pretrained(folder)
    (AutoImageProcessor if "image" in task else AutoTokenizer).from_pretrained(checkpoint).save_pretrained(folder)


def save_sentences(_: str, checkpoint: str, folder: str) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(checkpoint, backend="onnx", device="cpu", model_kwargs={"export": True}).save_pretrained(folder)


def run(task: str, folder: str, feeds: str, outputs: str) -> None:
    import numpy as np

    found = model_class(task).from_pretrained(folder)(**np.load(feeds))
    np.save(outputs, getattr(found, CLASSES[task][1]))


def embed(backend: str, folder: str, texts: str, outputs: str) -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, backend=backend, device="cpu")
    np.save(outputs, model.encode(json.loads(Path(texts).read_text())))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
