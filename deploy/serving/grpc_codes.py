"""What gRPC calls its messages, and the statuses of HTTP."""

from typing import Final

MEDIA_TYPE: Final = "application/grpc"
_CODES: Final = {
    200: "OK",
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    # As gRPC itself has it for a message that is too large.
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def grpc_code(status: int) -> str:
    """The name of the code."""
    return _CODES.get(status, "INTERNAL")
