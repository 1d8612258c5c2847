"""The page of families and tasks, made of what they say of themselves: `python -m tfbatch_export.page`."""

from importlib import import_module
from typing import Any

import transformers
from tfbatch.config import RunConfig, option_of
from tfbatch.tasks import load_task, task_names, type_name

from tfbatch_export import families
from tfbatch_export.distance import TOLERANCE
from tfbatch_export.families import Family, family_names, tasks_of
from tfbatch_export.parity import REAL

HEAD = """# Families and tasks

Made by `make docs` of the files in `export/tfbatch_export/families` and `pipeline/tfbatch/tasks`; a test holds it to
them.

## Families

Operators are those that the graph of a checkpoint in the family's default size must have at least, and of which it may
have none; an export that comes to anything else is refused. Where a head reads the first token alone, as those that
classify texts do, an Attention of the last layer becomes MultiHeadAttention, and what follows is left out for others.
In fp32 every Attention that is told the lengths of rows becomes MultiHeadAttention, with products of its own before
it; in int8 every one without order and bias of places, and in fp16, which is for GPUs. There sums are part of
SkipLayerNormalization and EmbedLayerNormalization, which count as LayerNormalization.

| family | tasks | layers | fused operators | and none of |
|---|---|---|---|---|
"""

PRECISION = """The same for every family and task. Of models that give one number, an error of e times what all rows are
spread by counts as a cosine of 1 - e² / 2: 0.99 allows an e of 0.14. Of labels that do not exclude each other those
whose logit is positive are compared; the share is that of those which either side has."""


def page() -> str:
    """All of it, as Markdown."""
    names = family_names()
    rows = "".join(map(family_row, names))
    notes = "".join(f"- `{name}`: {one_line(family_module(name).__doc__)}\n" for name in names)
    tasks = "\n".join(map(task_section, task_names()))
    return f"{HEAD}{rows}\n{notes}\n{precision_section()}\n## Tasks\n\n{tasks}"


def family_module(name: str) -> Any:
    """A family's file."""
    return import_module(f"{families.__name__}.{name}")


def family_row(name: str) -> str:
    """A family's row of the table; tasks whose graphs have other operators have one of their own."""
    config = default_config(name)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for task, family in tasks_of(name).items():
        rows.setdefault(operators(family, config), []).append(f"`{task}`")
    return "".join(
        f"| `{name}` | {', '.join(tasks)} | {layers} | {fused} | {left} |\n"
        for (layers, fused, left), tasks in rows.items()
    )


def operators(family: Family, config: Any) -> tuple[str, str, str]:
    """How many layers, how many of each fused operator, and of which none may be left."""
    expected = family.expected(config)
    fused = ", ".join(f"{count} {name}" for name, count in expected.items() if count)
    return str(family.layers(config)), fused, ", ".join(name for name, count in expected.items() if not count)


def default_config(name: str) -> Any:
    """The configuration that transformers has for a family where nothing is said."""
    types = {name, name.replace("_", "-")} & set(transformers.models.auto.CONFIG_MAPPING)
    return transformers.AutoConfig.for_model(types.pop())


def precision_section() -> str:
    """What each precision is held to."""
    limits = "\n".join(
        f"| {precision} | {limit} |"
        for precision, limit in (
            ("fp32", f"outputs of PyTorch's within {TOLERANCE:.0e}, the same label in every row"),
            *((name, held_to(name)) for name in sorted(REAL)),
        )
    )
    return f"## Precision\n\n{PRECISION}\n\n| computed in | held to |\n|---|---|\n{limits}\n"


def held_to(precision: str) -> str:
    """The limits of a reduced precision, in words."""
    least = REAL[precision]
    return f"a mean cosine with PyTorch's outputs of {least.cosine}, {least.label_agreement:.0%} of the labels the same"


def task_section(name: str) -> str:
    """What a task reads, adds and can be told."""
    task = load_task(name)
    always = task.columns(RunConfig(inputs=())).names
    columns = [
        f"- adds `{field.name}`: {type_name(field.type)}{'' if field.name in always else ', where asked for'}\n"
        for field in task.columns(RunConfig(inputs=(), threshold=0.5, keep_mask=True, top_k=1))
    ]
    served = ", ".join(f"`{family}`" for family in family_names() if name in tasks_of(family))
    options = ", ".join(f"`{option_of(option)}`" for option in task.options) or "none"
    return (
        f"### {name}\n\n{one_line(family_doc(name))}\n\n- reads a column of kind {task.kind}\n{''.join(columns)}"
        f"- options: {options}\n- families: {served}\n"
    )


def family_doc(task: str) -> str | None:
    """The docstring of a task's file."""
    return import_module(f"tfbatch.tasks.{task.replace('-', '_')}").__doc__


def one_line(text: str | None) -> str:
    """A docstring's first paragraph, without its breaks."""
    return " ".join((text or "").split("\n\n")[0].split())


if __name__ == "__main__":
    print(page(), end="")
