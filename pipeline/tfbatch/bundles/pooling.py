"""How the states of a text's tokens become one embedding, as a folder of sentence-transformers says.

    modules.json               the steps: Transformer, Pooling and maybe Normalize
    1_Pooling/config.json      the mode
    sentence_bert_config.json  the length that texts are cut at; early releases put another model's name there

What a step does that is not known here would be left out in silence; it is refused instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tfbatch.bundles.json_files import read_json, read_object, token_count
from tfbatch.bundles.tiny_graph import one_embedding
from tfbatch.errors import BadConfiguration

STEPS = ["Transformer", "Pooling", "Normalize"]
MODES = {"cls_token": "cls", "mean_tokens": "mean"}  # `pooling_mode_<key>` in files, before they name one mode
KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
LENGTHS = [f"sentence_{kind}_config.json" for kind in KINDS]  # whatever the model is, the first one that is there
OWN_FILE = "config_sentence_transformers.json"
LIBRARY = "sentence_transformers."  # begins the types of its own steps; others are a repository's code
CHANGES = [
    "processing_kwargs",  # which change texts' tokens
    *(f"{what}_{how}" for what in ("tokenizer", "processor", "config") for how in ("args", "kwargs")),  # or the model
]
HARMLESS = {"trust_remote_code", "use_fast", "revision", "cache_dir", "attn_implementation", "torch_dtype", "dtype"}
SWITCH = "pooling_mode_"
MASK = "attention_mask"
SHORTEST = np.float32(1e-12)  # an embedding is divided by no less, as PyTorch has it


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """`mode` is `mean`, over the real tokens, or `cls`, the first token alone; `normalised` is to length one.

    The defaults are for checkpoints that say nothing of it. A `Reduction`.
    """

    mode: str = "mean"
    normalised: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """See `Reduction`."""
        return () if self.mode == "cls" else (MASK,)

    def graph(self) -> bytes:
        """See `Reduction`."""
        return one_embedding(self.mode, is_normalised=self.normalised, shortest=float(SHORTEST))

    def of(self, states: npt.NDArray[np.float32], feeds: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float32]:
        """States (B, L, D) float32, and a mask (B, L) that is one where there is a token, else zero, to (B, D)."""
        if self.mode == "cls":
            embeddings = states[:, 0]
        else:
            real = np.asarray(feeds[MASK]).astype(np.float32)
            embeddings = np.matmul(real[:, None], states)[:, 0] / real.sum(1, keepdims=True)
        if not self.normalised:
            return embeddings
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        unit: npt.NDArray[np.float32] = embeddings / np.maximum(lengths, SHORTEST)
        return unit


def read_pooling(folder: Path) -> Pooling:
    """What a checkpoint's folder says; the defaults where it has no `modules.json`.

    Raises:
        BadConfiguration: it asks for steps, a mode or a prompt that would be left out.
    """
    if not (folder / "modules.json").is_file():
        return Pooling()
    modules = read_modules(folder)
    if foreign := [module["type"] for module in modules if not str(module["type"]).startswith(LIBRARY)]:
        raise BadConfiguration(f"{folder}: modules.json has {foreign[0]}, which is not sentence-transformers' own")
    steps = [str(module["type"]).rpartition(".")[2] for module in modules]
    if steps not in (STEPS, STEPS[:2]):
        raise BadConfiguration(
            f"{folder}: modules.json has {', '.join(steps)}; what is known is Transformer and Pooling, "
            f"with or without Normalize"
        )
    if modules[0]["path"]:
        raise BadConfiguration(f"{folder}: modules.json has the Transformer in {modules[0]['path']}; name that folder")
    place = str(modules[1]["path"])
    if place != Path(place).name:
        raise BadConfiguration(f"{folder}: modules.json has the Pooling in {place}, which is no folder of this one's")
    refuse_prompt(folder)
    return Pooling(mode=read_mode(folder / place / "config.json"), normalised=steps == STEPS)


def ends_at_length_one(folder: Path) -> bool:
    """Whether a folder's last step is to bring an embedding to length one."""
    return (folder / "modules.json").is_file() and str(read_modules(folder)[-1]["type"]).endswith(STEPS[-1])


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The steps of a folder, each with its type and its path.

    Raises:
        BadConfiguration: modules.json is no such list.
    """
    modules = read_json(folder / "modules.json")
    if not (
        isinstance(modules, list)
        and modules
        and all(isinstance(m, dict) and {"type", "path"} <= m.keys() for m in modules)
    ):
        raise BadConfiguration(f"{folder}: modules.json is no list of steps with a type and a path")
    return modules


def read_mode(file: Path) -> str:
    """`mean` or `cls`, of a configuration that names its modes or has a switch for each, mean being on by itself."""
    content = {f"{SWITCH}mean_tokens": True} | read_object(file)
    switches = {name.removeprefix(SWITCH): on for name, on in content.items() if name.startswith(SWITCH)}
    named = content.get("pooling_mode") or [MODES.get(name, name) for name, on in switches.items() if on is True]
    modes = list(map(str, named)) if isinstance(named, list) else [str(named)]
    if len(modes) != 1 or modes[0] not in MODES.values():
        raise BadConfiguration(
            f"{file} pools by {' and '.join(modes) or 'nothing'}; what is known is {' or '.join(MODES.values())}"
        )
    return modes[0]


def refuse_prompt(folder: Path) -> None:
    """Refuse what puts words of its own before every text."""
    file = folder / OWN_FILE
    content = read_object(file) if file.is_file() else {}
    name, prompts = content.get("default_prompt_name"), content.get("prompts")
    if name and not (isinstance(prompts, dict) and prompts.get(name) == ""):
        raise BadConfiguration(f"{file} puts the prompt {name} before every text (default_prompt_name), run does not")


def read_length(folder: Path) -> int | None:
    """The number of tokens that texts are cut at, None where the folder names none.

    Raises:
        BadConfiguration: texts are changed before they are tokenized, or settings of other files replaced.
    """
    file = next((file for name in LENGTHS if (file := folder / name).is_file()), None)
    content = {} if file is None else read_object(file)
    if content.get("do_lower_case"):
        raise BadConfiguration(
            f"{file} has texts in lower case before they are tokenized (do_lower_case), run does not"
        )
    for name in CHANGES:
        told = content.get(name) or {}
        if not isinstance(told, dict) or told.keys() - HARMLESS:
            raise BadConfiguration(
                f"{file} has {name} {told}, which run does not know; put it into the files it changes"
            )
    return None if file is None else token_count(content.get("max_seq_length"), f"{file}: max_seq_length")
