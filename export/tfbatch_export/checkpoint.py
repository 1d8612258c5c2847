"""A checkpoint to a loaded model: a local folder, or a Hub repository at one commit.

Weights are read from safetensors alone: a pickle runs code when it is opened. No code of the
repository's is run either.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, snapshot_download
from optimum.exporters.tasks import TasksManager
from tfbatch.bundles.json_files import read_object
from tfbatch.errors import BadConfiguration, NoInput, UsageError, first_line
from tfbatch.host.hashes import sha256
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging

from tfbatch_export.checkpoints.files import check_files, loading, weight_files
from tfbatch_export.families import Family, tasks_of

FILES = ["*.json", "*.txt", "*.safetensors", "*.model"]
UNTRAINED = "was newly initialized: the checkpoint was not trained for it"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint on disk and where it came from; `commit` is None for a local folder."""

    name: str
    folder: Path
    commit: str | None

    @property
    def config(self) -> dict[str, Any]:
        return read_object(self.folder / "config.json")

    @property
    def source(self) -> dict[str, Any]:
        """What a manifest records of it; of a local folder where that is, from wherever it is looked for again."""
        name = str(self.folder.absolute()) if self.commit is None else self.name
        return {"name": name, "commit": self.commit, "weights": self.weights}

    @property
    def weights(self) -> dict[str, str]:
        """File name to SHA-256 of the weights."""
        return {name: sha256(file) for name, file in weight_files(self.folder).items()}


def find_checkpoint(model: str, revision: str | None) -> Checkpoint:
    """A local folder as it is, or a Hub repository's files at the commit a revision stands for.

    Raises:
        NoInput: there is no such folder, repository or revision, or the Hub does not answer.
        BadConfiguration: the checkpoint has no safetensors, or is refused as `check_files` has it.
    """
    folder = Path(model)
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"--revision is for the Hub; {model} is a local folder")
        checkpoint = Checkpoint(name=str(folder), folder=folder, commit=None)
    elif model.startswith(("/", ".", "~")):
        raise NoInput(f"there is no folder {model}")
    else:
        try:
            commit = HfApi().model_info(model, revision=revision).sha
            folder = Path(snapshot_download(model, revision=commit, allow_patterns=FILES))
        except Exception as error:
            where = f"revision {revision} of {model}" if revision else model
            raise NoInput(f"{where} is neither a folder nor to be had from the Hub: {first_line(error)}") from error
        checkpoint = Checkpoint(name=model, folder=folder, commit=commit)
    check_files(folder, checkpoint.name)
    return checkpoint


def infer_task(checkpoint: Checkpoint) -> str:
    """The task of the class that the checkpoint was saved from.

    Raises:
        UsageError: it names none that its family is exported for.
    """
    config = read_config(checkpoint)
    architectures = config.architectures or []
    tasks = tasks_of(config.model_type)
    for task, family in tasks.items():
        if not family.is_inferred:
            continue
        models = auto_class(task, family)._model_mapping
        kind = type(config)
        found = models[kind] if kind in models else ()  # noqa: SIM401 -- its get() takes no default
        if any(kind.__name__ in architectures for kind in (found if isinstance(found, tuple) else (found,))):
            return task
    raise UsageError(
        f"{checkpoint.name} was saved from {', '.join(architectures) or 'no known class'}; "
        f"say what it is for with --task: {', '.join(tasks)}"
    )


def read_config(checkpoint: Checkpoint) -> Any:
    """The configuration, with one number for sides of pictures that it gives as height and width.

    Raises:
        BadConfiguration: it cannot be read, or these differ.
    """
    with loading(checkpoint.folder):
        config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
    for part in (config, getattr(config, "vision_config", None)):
        for name in ("image_size", "patch_size"):
            sides = getattr(part, name, None)
            if not isinstance(sides, list | tuple):
                continue
            if len(set(sides)) != 1:
                raise BadConfiguration(f"{checkpoint.name}: {name} is {sides}; what can be exported is square")
            setattr(part, name, sides[0])
    return config


def auto_class(task: str, family: Family) -> Any:
    """The AutoModel class that transformers has for a task, or that the family asks for."""
    if family.hub_class is not None:
        return getattr(transformers, family.hub_class)
    return TasksManager.get_model_class_for_task(task, framework="pt", library="transformers")


def load_model(checkpoint: Checkpoint, task: str, family: Family) -> PreTrainedModel:
    """The model in float32, in evaluation mode, with all of its weights trained.

    `name_or_path` is its folder, where a family finds what else belongs to the model.

    Raises:
        BadConfiguration: weights that the task needs are missing, or are not of the sizes that are configured.
    """
    config = read_config(checkpoint)
    with quiet(), loading(checkpoint.folder):
        model, report = auto_class(task, family).from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(family.unused)):
        raise BadConfiguration(f"{checkpoint.name} cannot do {task}: {', '.join(missing)} {UNTRAINED}")
    loaded: PreTrainedModel = model.eval()
    loaded.name_or_path = str(checkpoint.folder)
    return loaded


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers without its bars and reports; what matters of them is checked."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # where HF_HUB_DISABLE_PROGRESS_BARS is set
                logging.enable_progress_bar()
