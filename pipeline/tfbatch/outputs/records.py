"""Which parts of a plan are finished: those with a record, and there as it says."""

import json
from pathlib import Path

from tfbatch.host.durable import to_json
from tfbatch.outputs.claim import DONE, Record
from tfbatch.outputs.image_files import are_there
from tfbatch.outputs.storage import Storage
from tfbatch.plan import Part, Plan
from tfbatch.stages import overlap

READERS = 8  # records read at once: from an object store each takes a while


class Records:
    """The records of the parts that a job has finished; with `verify` a part counts only with the recorded hashes."""

    def __init__(self, storage: Storage, plan: Plan, fingerprint: str, *, verify: bool) -> None:
        self._storage = storage
        self._plan = plan
        self._fingerprint = fingerprint
        self._verify = verify

    def read(self, *, are_joined: bool) -> dict[Part, Record]:
        """The records that count. Where parts `are_joined` to one file they are there no more."""

        def read(part: Part) -> Record | None:
            self._storage.beat()
            try:
                record: Record = json.loads(self._storage.read(self._name(part)))
                fits = (record["part"], record["rows"]) == (part.name(self._fingerprint), part.rows)
                fits = fits and isinstance(record["errors"], int)
                counts = fits and (are_joined or self._is_there(record, verify=self._verify))
            except (OSError, ValueError, KeyError, TypeError):
                return None
            return record if counts else None

        records = overlap(read, self._plan.parts, workers=READERS, ahead=4 * READERS)
        return {part: record for part, record in zip(self._plan.parts, records, strict=True) if record is not None}

    def write(self, part: Part, record: Record) -> None:
        """Make a part count that has its name."""
        self._storage.write(self._name(part), to_json(record))

    def missing(self, records: dict[Part, Record]) -> list[str]:
        """The names of recorded parts that somebody has taken away, or their pictures."""

        def is_there(record: Record) -> bool:
            self._storage.beat()
            try:
                return self._is_there(record, verify=False)
            except (FileNotFoundError, NotADirectoryError):
                return False

        found = overlap(is_there, records.values(), workers=READERS, ahead=4 * READERS)
        return [record["part"] for record, there in zip(records.values(), found, strict=True) if not there]

    def _is_there(self, record: Record, *, verify: bool) -> bool:
        """Whether a recorded part is in the folder, with its pictures; with `verify`, byte for byte."""
        name, pictures = record["part"], record["images"]
        if self._storage.size(name) != record["bytes"]:
            return False
        if verify and self._storage.sha256(name) != record["sha256"]:
            return False
        return pictures is None or are_there(self._storage, pictures, verify=verify)

    def _name(self, part: Part) -> str:
        return f"{DONE}/{Path(part.name(self._fingerprint)).name}.json"
