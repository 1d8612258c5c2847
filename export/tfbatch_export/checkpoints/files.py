"""A checkpoint's files before transformers sees them: what cannot be loaded safely is refused."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfbatch.bundles.json_files import read_object
from tfbatch.errors import BadConfiguration, first_line

CONFIGURATIONS = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"  # where weights are in several files, and read where there is no other
ADAPTER = "adapter_config.json"
POINTER = b"version https://git-lfs"


def weight_files(folder: Path) -> dict[str, Path]:
    """Those beside the configuration, in order of name."""
    return {file.name: file for file in sorted(folder.glob("*.safetensors"))}


def check_files(folder: Path, name: str) -> None:
    """Hold a checkpoint's folder to safetensors that are there, and to transformers' own code.

    Raises:
        BadConfiguration: it has something else.
    """
    if not (folder / "config.json").is_file():
        raise BadConfiguration(f"{name} holds no config.json: it is not a checkpoint")
    if not weight_files(folder):
        raise BadConfiguration(
            f"{name} has no .safetensors weights. Other formats can run code when opened and are "
            f"not read; convert it with `AutoModel.from_pretrained(...).save_pretrained(...)` where you trust it."
        )
    if (folder / ADAPTER).is_file():
        raise BadConfiguration(
            f"{name} has an adapter beside its weights ({ADAPTER}), which would be left out; merge it first, with "
            f"peft's `merge_and_unload()`, and save the model"
        )
    for file in (folder / entry for entry in CONFIGURATIONS):
        if file.is_file() and asks_for_code(read_object(file)):
            raise BadConfiguration(f"{name} asks for code of its own (auto_map in {file.name}), which is not run")
    check_weights(folder, name)


def check_weights(folder: Path, name: str) -> None:
    """Refuse weights that are none, or that lie elsewhere, where nobody would hash them."""
    for file in weight_files(folder).values():
        with file.open("rb") as opened:
            if opened.read(len(POINTER)) == POINTER:
                raise BadConfiguration(f"{file} is a pointer of Git LFS, not the weights: `git lfs pull` fetches them")
    is_split = (folder / INDEX).is_file() and not (folder / WHOLE).is_file()
    places = read_object(folder / INDEX).get("weight_map") if is_split else None
    named = {str(place) for place in places.values()} if isinstance(places, dict) else set()
    if missing := sorted(named - set(weight_files(folder))):
        raise BadConfiguration(f"{INDEX} names weights that do not lie beside it in {name}: {', '.join(missing)}")


def asks_for_code(content: dict[str, Any]) -> bool:
    """Whether a configuration, or one of those inside it, names classes of the repository's own."""
    return any("auto_map" in part for part in (content, *content.values()) if isinstance(part, dict))


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Have what transformers finds wrong with a folder's files be an error of the checkpoint's; it raises any kind.

    Raises:
        BadConfiguration: something is.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise BadConfiguration(f"{folder} cannot be loaded: {first_line(error)}") from error
