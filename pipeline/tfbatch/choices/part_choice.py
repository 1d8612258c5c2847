"""How many rows an output's parts have."""

from tfbatch.config import RunConfig
from tfbatch.tasks import MakesPictures, Task

ROWS = {"text": 100_000, "image": 10_000}  # by the kind of column: what a crash costs at most is minutes of work
ROWS_OF_MADE = 1_000  # where a row's picture takes a second to make, and a megabyte to keep


def rows_per_part(config: RunConfig, task: type[Task]) -> int:
    """As asked for, or fewer the more a row takes."""
    return config.rows_per_part or (ROWS_OF_MADE if issubclass(task, MakesPictures) else ROWS[task.kind])
