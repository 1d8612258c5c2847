"""Labels that a run is told, for models that choose among any: `--labels` and `--label-template`."""

from tfbatch.errors import UsageError


def checked_names(labels: tuple[str, ...] | None) -> list[str]:
    """The labels as they are, each once.

    Raises:
        UsageError: there are none, one is empty or one is there twice.
    """
    if not labels:
        raise UsageError("this model is for any labels: say which, as in --labels 'a cat,a dog'")
    if not all(map(str.strip, labels)):
        raise UsageError(f"--labels has an empty label: {', '.join(map(repr, labels))}")
    if twice := sorted({name for name in labels if labels.count(name) > 1}):
        raise UsageError(f"--labels has {', '.join(twice)} more than once")
    return list(labels)


def fill(template: str, names: list[str]) -> list[str]:
    """A text for each label, as `str.format` makes it.

    Raises:
        UsageError: the template has no place for a label, or another one.
    """
    try:
        texts = [template.format(name) for name in names]
        is_fixed = template.format("a") == template.format("b")  # which may hold each label even so
    except (LookupError, ValueError, AttributeError) as error:
        raise UsageError(f"--label-template {template!r} is no text with one {{}}: {error}") from error
    if is_fixed or any(name not in text for name, text in zip(names, texts, strict=True)):
        raise UsageError(f"--label-template {template!r} has no {{}}, where the label is put")
    return texts
