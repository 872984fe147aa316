"""What is printed whenever something else is served."""

from collections.abc import Collection
from importlib import metadata
from pathlib import Path


def announce(running: Collection[tuple[str, str]], served: Path, address: str, grpc: str) -> None:
    """`running` are the names of models, each with the version that answers."""
    also = f", gRPC on {grpc}" if grpc else ""
    version = metadata.version("maasflow")
    names = ", ".join(f"{name} (version {number})" for name, number in sorted(running))
    if names:
        print(f"maasflow {version} is ready on {address} ({address}/docs{also}): {names}", flush=True)
    else:
        print(f"maasflow {version} is on {address}{also}, not ready: {served} has no model that can be served yet", flush=True)
