"""What a job's process and those that work for it tell one another, pickled, over a pipe each.

job                      worker
  Orders             →                 once
                     ←   Free          it has nothing to do
  True               →                 there may be parts for it; False: it is done
                     ←   More          its reader is at the end of what it has
  Lot                →                 the next parts, that follow one another; none is left for now
                     ←   Scored        a window of the part is written
                     ←   Leave         may it give a part its name, or begin one
  True               →
                     ←   Alive         it got on, though there is nothing to say
                     ←   Complete      a part has its name; the job records it
                     ←   Failed        instead of all that would follow
                     ←   Tally         after False, last
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfbatch.config import RunConfig
from tfbatch.outputs.claim import Record
from tfbatch.plan import Part, Plan
from tfbatch.reporting.tally import Tally


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a worker is to do: its share of a job, which must come to the same `fingerprint` there.

    `spool` is the worker's own; `batch_tokens` are settled where they are not None.
    """

    spool: Path
    config: RunConfig
    plan: Plan
    fingerprint: str
    batch_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Lot:
    """Parts to be done; of those that are `shown`, rows go onto the contact sheet."""

    parts: list[Part]
    shown: list[Part]


@dataclass(frozen=True)
class Free:
    pass


@dataclass(frozen=True)
class More:
    pass


@dataclass(frozen=True)
class Leave:
    pass


@dataclass(frozen=True)
class Alive:
    pass


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Rows of a part, some with errors, of which the first is `first_error`; and the settled budget of a batch."""

    rows: int
    errors: int
    first_error: tuple[Part, int, str] | None
    batch_tokens: int | None


@dataclass(frozen=True, kw_only=True)
class Complete:
    """A part with its record; `drawn` are rows for the contact sheet, `tally` what the worker has done so far."""

    part: Part
    record: Record
    drawn: list[Any]
    tally: Tally


@dataclass(frozen=True, kw_only=True)
class Failed:
    exit_code: int
    reason: str
