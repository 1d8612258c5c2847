"""JSON files that come with a model, and what they hold."""

import json
from pathlib import Path
from typing import Any

from tfbatch.errors import BadConfiguration

SHORTEST = 3  # tokens: one between two special ones


def read_json(file: Path) -> Any:
    """The content of a JSON file that must be there."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"{file} cannot be read: {error}") from error


def read_object(file: Path) -> dict[str, Any]:
    """A JSON file of names with values.

    Raises:
        BadConfiguration: it is another.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise BadConfiguration(f"{file} holds no names with values")
    return content


def token_count(value: object, name: str) -> int | None:
    """A number of tokens, which may be written with a point; None where there is none.

    Raises:
        BadConfiguration: it is another kind of value, or leaves no place for a token between two special ones.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < SHORTEST:
        raise BadConfiguration(f"{name} is {value!r}, which is no number of tokens from {SHORTEST} on")
    return int(value)
