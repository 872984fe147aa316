"""What one of several processes that answer on a port is told by the one that starts it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter

from deploy.serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Orders:
    """They go through a socket rather than the command line, which everyone on the machine may read."""

    number: int
    """Of the process, from 1 on."""
    listener: int
    """The number of the open socket on which all of them listen."""
    served: Path
    settings: Settings
    log_level: int

    def written(self) -> dict[str, Any]:
        """As JSON has it, with times that may be infinite."""
        written: dict[str, Any] = TypeAdapter(type(self)).dump_python(self, mode="json")
        return written

    @classmethod
    def read(cls, written: Any) -> Self:
        return TypeAdapter(cls).validate_python(written)
