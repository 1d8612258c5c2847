"""Folders that other tools export, run as bundles that nobody has verified.

    model.onnx, config.json            optimum-cli export onnx, ORTModelFor<Task>.save_pretrained
    onnx/model.onnx, config.json,
    modules.json, 1_Pooling/           sentence-transformers
    tokenizer.json ...                 of texts, in either
    preprocessor_config.json           of pictures

What a manifest would say is found in the graph and in these files, and their hashes are taken as they
are: they tell whether a run that goes on goes on with the same ones. Nothing else is opened; what is
opened is no link, and what cannot be done as it is asked for there is refused.
"""

from pathlib import Path
from typing import Any

from tfbatch.bundle import Bundle, is_plain_file, load_bundle
from tfbatch.bundles.json_files import read_json, read_object, token_count
from tfbatch.bundles.manifest import MANIFEST, Graph, Manifest
from tfbatch.bundles.pooling import ends_at_length_one, read_length, read_pooling, refuse_prompt
from tfbatch.bundles.processor import picture_settings
from tfbatch.bundles.signature import Signature, Value, read_signature
from tfbatch.errors import BadConfiguration
from tfbatch.host.hashes import sha256

GRAPHS = ("model.onnx", "onnx/model.onnx")
FILES = ("*.json", "*/config.json")
HEADS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
}
POOLED = "sentence_embedding"
STATES = ("last_hidden_state", "token_embeddings")
OF_TEXTS = ({"input_ids", "attention_mask"}, {"input_ids", "attention_mask", "token_type_ids"})
OF_PICTURES = ({"pixel_values"},)
POSITIONS_AFTER_PADDING = ("camembert", "data2vec-text", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")
LONGEST = 1 << 20  # tokens; tokenizers name a number like 10 ** 30 where they know none


def open_bundle(path: Path) -> Bundle:
    """A bundle, or what another tool exported.

    Raises:
        BadConfiguration: it is neither, or one that cannot be used.
    """
    graph = graph_in(path)
    if has_manifest(path) or graph is None:
        return load_bundle(path)
    try:
        return read_foreign(path, graph)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise BadConfiguration(
            f"{path} has no {MANIFEST}, and its own files cannot be understood: {type(error).__name__} {error}"
        ) from error


def has_manifest(path: Path) -> bool:
    """Whether a folder is a bundle, however broken."""
    return (path / MANIFEST).is_symlink() or (path / MANIFEST).exists()


def graph_in(path: Path) -> str | None:
    """The graph of a folder that another tool made, None where it is none."""
    if not (path / "config.json").exists():
        return None
    return next((name for name in GRAPHS if (path / name).exists()), None)


def read_foreign(path: Path, graph: str) -> Bundle:
    """A bundle in memory of a folder without a manifest."""
    files = {name: hash_file(path, name) for name in sorted({graph, *names_of(path)})}
    config, signature = read_json(path / "config.json"), read_signature(path / graph)
    output = choose_output(path, signature)
    task = "feature-extraction" if output.name != "logits" else task_of(path, config)
    labels = labels_of(path, config, output) if output.name == "logits" else []
    is_text = task != "image-classification"
    check_inputs(path, signature, is_text=is_text)
    settings = text_settings(path, config) if is_text else picture_settings(path, config)
    pooling = read_pooling(path) if output.name in STATES else None
    if task == "feature-extraction":
        settings["embedding_width"] = output.shape[-1] or config.get("hidden_size") or config["dim"]
    if output.name == POOLED:
        refuse_prompt(path)
        settings["normalised"] = ends_at_length_one(path)
    if pooling is not None:
        settings |= {"pooling": pooling.mode, "normalised": pooling.normalised}
    manifest = Manifest(
        task=task,
        family=str(config.get("model_type", "unknown")),
        source={"name": str(path), "commit": None, "weights": {}},
        labels=labels,
        inputs=list(signature.inputs),
        settings=settings,
        graphs={"fp32": unproved(graph)},
        versions={},
        files=files,
    )
    return Bundle(path=path, manifest=manifest, is_verified=False, output=output.name, pooling=pooling)


def unproved(file: str) -> Graph:
    """A graph of which nothing is known."""
    return Graph(file=file, layers=0, fused={}, expected={}, tolerance=0.0, parity=[])


def names_of(path: Path) -> list[str]:
    """The files that may be opened, below a folder."""
    return [str(file.relative_to(path)) for pattern in FILES for file in path.glob(pattern)]


def hash_file(path: Path, name: str) -> str:
    """The SHA-256 of a file, neither itself nor its folder a link."""
    file = path / name
    if not is_plain_file(file) or (file.parent != path and file.parent.is_symlink()):
        raise BadConfiguration(
            f"{path}: {name} is a link or not a plain file; copy the folder with what it links to (cp -rL)"
        )
    return sha256(file)


def choose_output(path: Path, signature: Signature) -> Value:
    """The output that is used, which must be in single precision."""
    wanted = ("logits", POOLED, *STATES)
    output = next((signature.outputs[name] for name in wanted if name in signature.outputs), None)
    if output is None:
        raise BadConfiguration(
            f"{path}: the graph gives {', '.join(signature.outputs) or 'nothing'}; what can be used is any of "
            f"{', '.join(wanted)}"
        )
    if output.element != "float32":
        raise BadConfiguration(f"{path}: {output.name} is {output.element}; export the graph in float32")
    return output


def check_inputs(path: Path, signature: Signature, *, is_text: bool) -> None:
    """Refuse a graph that asks for more than a task can give, or for less than it must."""
    known, element = (OF_TEXTS, "int64") if is_text else (OF_PICTURES, "float32")
    inputs = signature.inputs
    if set(inputs) not in known or any(value.element != element for value in inputs.values()):
        found = ", ".join(f"{value.name} ({value.element})" for value in inputs.values())
        raise BadConfiguration(
            f"{path}: the graph takes {found or 'nothing'}; what can be given is {', '.join(sorted(known[-1]))} "
            f"({element})"
        )


def task_of(path: Path, config: dict[str, Any]) -> str:
    """By the name of the class that was exported."""
    names = config.get("architectures") or []
    for ending, task in HEADS.items():
        if any(ending in name for name in names):
            return task
    raise BadConfiguration(
        f"{path}: config.json names {', '.join(names) or 'no class'} in `architectures`; what gives logits and can be "
        f"run is any of ...{', ...'.join(HEADS)}"
    )


def labels_of(path: Path, config: dict[str, Any], output: Value) -> list[str]:
    """The names of the classes; a configuration leaves them out where there are two without names."""
    names = {int(index): str(name) for index, name in config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"}).items()}
    count = output.shape[-1] if output.shape else None
    if sorted(names) != list(range(len(names))) or count not in (None, len(names)):
        raise BadConfiguration(f"{path}: config.json names {len(names)} labels (id2label), the graph gives {count}")
    return [names[index] for index in range(len(names))]


def text_settings(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What is to be known of a tokenizer: the shortest of all lengths that are named, and the padding."""
    if not (path / "tokenizer.json").exists():
        raise BadConfiguration(
            f"{path} has no tokenizer.json; save it there: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    tokenizer = read_object(path / "tokenizer_config.json") if (path / "tokenizer_config.json").exists() else {}
    if (side := tokenizer.get("truncation_side") or "right") != "right":
        raise BadConfiguration(
            f"{path}: tokenizer_config.json cuts long texts on the {side} (truncation_side); what can be run cuts them "
            f"on the right: put that in, if it is as good for this model"
        )
    padding = config.get("pad_token_id") or 0
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in POSITIONS_AFTER_PADDING:
        positions -= padding + 1
    most = token_count(tokenizer.get("model_max_length"), f"{path}: model_max_length of tokenizer_config.json")
    length = read_length(path)
    lengths = [
        length
        for length in (positions, most if length is None else length)
        if isinstance(length, int) and 0 < length < LONGEST
    ]
    if not lengths:
        raise BadConfiguration(
            f"{path} names no length to cut texts at: put model_max_length into tokenizer_config.json"
        )
    return {"max_length": min(lengths), "pad_token_id": padding}
