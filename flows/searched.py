"""What a search for variants leaves in MLflow and in Prefect's run, whether it found one or none."""

import re
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.job import Job
from tasks.candidate_table import Found, markdown
from tasks.compress import FINDINGS
from tasks.tracking import Run


def log_search(job: Job, run: Run, found: Found, folder: Path) -> None:
    """Leave the candidates and their picture in MLflow, and the table in Prefect's run."""
    for candidate in found.candidates:
        figures = candidate.model_dump(
            include={
                *("bytes", "size_ratio", "load_ms", "memory_mb", "latency_ms", "p99_ms", "rows_per_second"),
                *("validation", "validation_drop", "test", "agreement", "calibration_error"),
            },
            exclude_none=True,
        )
        run.figures({f"variant/{candidate.name}/{name}": value for name, value in figures.items()})
    for name in FINDINGS:
        run.artifact(folder / name, "compression")
    # Prefect takes small letters, digits and dashes.
    key = re.sub("[^a-z0-9]+", "-", f"{job.name}-variants".lower()).strip("-")
    create_markdown_artifact(markdown(found), key=key, description=f"The variants of {job.name}; the picture is in MLflow's run {run.id}.")
