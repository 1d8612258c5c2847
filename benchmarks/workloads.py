"""What is scored: a kind of task, a model and how many rows.

Row counts are such that tfbatch takes ten to twenty seconds on two cores, and fills what may be under way.
Imported in every contender's environment, so it needs nothing but Python.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "build" / "benchmarks"


@dataclass(frozen=True, kw_only=True)
class Model:
    """One set of weights in the two forms that contenders load, and where they may keep a third."""

    kind: str
    checkpoint: Path
    bundle: Path
    prepared: Path = Path()

    def prepared_by(self, contender: str) -> Path:
        """The form that a contender converts it to."""
        return HERE / "prepared" / contender / self.checkpoint.name


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Rows for a model; `rows` is how many there are at scale 1."""

    name: str
    rows: int
    model: Model

    @property
    def kind(self) -> str:
        return self.model.kind

    @property
    def column(self) -> str:
        """The input's."""
        return "text" if self.kind in ("text", "embedding") else "image"

    @property
    def result(self) -> str:
        """The column in which contenders must agree."""
        return {"text": "predicted_label", "image": "predicted_label", "embedding": "embedding"}.get(
            self.kind, "generated_image"
        )


def own(kind: str, name: str) -> Model:
    """A model that the benchmarks make."""
    return Model(kind=kind, checkpoint=HERE / "checkpoints" / name, bundle=HERE / "bundles" / name)


def default(kind: str, name: str) -> Model:
    """A default model of the project."""
    return Model(kind=kind, checkpoint=ROOT / "examples" / name, bundle=ROOT / "models" / name)


SENTIMENT = Model(kind="text", checkpoint=ROOT / "build/checkpoints/sentiment", bundle=ROOT / "models/sentiment")
MINILM = Model(kind="embedding", checkpoint=ROOT / "build/checkpoints/minilm", bundle=ROOT / "models/minilm")

ALL = (
    Workload(name="lines", rows=12_000, model=SENTIMENT),
    Workload(name="reviews", rows=10_000, model=SENTIMENT),
    Workload(name="documents", rows=800, model=SENTIMENT),
    Workload(name="mixed", rows=4_000, model=SENTIMENT),
    Workload(name="base", rows=1_500, model=own("text", "base")),
    Workload(name="embeddings", rows=12_000, model=MINILM),
    Workload(name="embeddings-mixed", rows=4_000, model=MINILM),
    Workload(name="fashion", rows=40_000, model=default("image", "fashion")),
    Workload(name="photos500", rows=600, model=own("image", "vits")),
    Workload(name="photos12mp", rows=150, model=own("image", "vits")),
    Workload(name="vitb", rows=120, model=own("image", "vitb")),
    Workload(name="inpaint", rows=20_000, model=default("inpaint", "inpaint")),
    Workload(name="upscale", rows=200, model=default("upscale", "upscale")),
)
BY_NAME = {workload.name: workload for workload in ALL}
