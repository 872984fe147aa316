"""What is set for libraries before they are imported: no telemetry, no chatter."""

import logging
import os
import sys
import warnings

_QUIET = {
    # Each of these can stall, or fill the log, where there is no network.
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    # How long torch's threads spin where they meet, before they sleep. The default is thirty times as long, which gains nothing
    # and takes the cores from whatever else runs: with one core busy, a step of BERT on two took a third longer.
    "GOMP_SPINCOUNT": "10000",
    # Stages tell what happens; Prefect would tell it again, with tracebacks for what we explain.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}


def quiet_libraries(*, debug: bool = False) -> None:
    """Set the environment, except where the user set it, and print stages' messages plainly."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if debug:
        os.environ["MAASFLOW_DEBUG"] = "1"
    else:
        warnings.simplefilter("ignore")
        # DVC, Great Expectations and others start processes that print their own.
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("maasflow").setLevel(logging.INFO)
    logging.getLogger("tasks").setLevel(logging.INFO)
