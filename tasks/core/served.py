"""The folder that the server reads: what the deployer leaves in it, for whoever reads it.

served/<model>/current.json      {"version": "3"}, the pointer
served/<model>/<version>/        its verified bundle
"""

import json
from pathlib import Path

POINTER = "current.json"


def pointed_at(model: Path) -> str | None:
    """The version that the model's pointer names, or None where there is no readable pointer."""
    try:
        return str(json.loads((model / POINTER).read_text())["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
