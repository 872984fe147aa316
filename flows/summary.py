"""What a run tells at its end: each stage, whether it ran, how long it took, and the figure that matters."""

from tasks.core.config import Config
from tasks.core.stages import StageResult


class Row(Config):
    """One stage of a run."""

    stage: str
    cached: bool
    seconds: float
    figure: str


class Summary(StageResult):
    """A finished run and the release that came of it."""

    rows: tuple[Row, ...]
    name: str
    version: str
    alias: str
    run: str
    dataset: str
    digest: str

    def as_cached(self) -> "Summary":
        """The same run, told by one that found everything done."""
        return self.model_copy(update={"rows": tuple(row.model_copy(update={"cached": True, "seconds": 0.0}) for row in self.rows)})

    def text(self) -> str:
        """The table, the release, and what to type next."""
        stage = max(len(row.stage) for row in self.rows)
        lines = [f"{'stage'.ljust(stage)}  {'':6}  seconds  result"]
        lines += [f"{row.stage.ljust(stage)}  {'cached' if row.cached else 'run':6}  {row.seconds:7.2f}  {row.figure}" for row in self.rows]
        if self.alias == "champion":
            then = f"maasflow serve    or    maasflow predict {self.name} FILE"
        else:
            then = f"maasflow promote {self.name} {self.version}    {'once it is reviewed' if self.alias else 'to serve it again'}"
        lines += [
            "",
            f"release  {self.name} version {self.version} ({self.alias or 'superseded'})",
            f"dataset  {self.dataset} {self.digest}",
            f"run      {self.run} in MLflow (maasflow ui)",
            f"next     {then}",
        ]
        return "\n".join(lines)
