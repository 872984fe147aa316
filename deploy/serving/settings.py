"""What an operator may set."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and times of one server. Times are in seconds."""

    processes: int = 1
    """Processes that answer on the port, each with a share of the cores; of more than one, a parent keeps them alive.

    What bounds a server otherwise bounds each of them, save what API keys may ask for.
    """
    grpc_port: int | None = None
    """Speak gRPC there too, 0 on a free port; without, not at all."""
    max_body_bytes: int = 16 * 2**20
    """Largest request body, or message of gRPC; a larger one is answered 413."""
    max_rows: int = 4096
    """Most instances, or rows of a tensor, in one request; more are answered 413."""
    max_characters: int = 2**20
    """Most characters of the texts in one request, or of one prompt; more are answered 413."""
    max_pixels: int = 2**26
    """Most pixels of the images in one request, as they are sent and as the model takes them; more are answered 413."""
    max_waiting: int = 1024
    """Most rows that wait for one model, unless one request has more; more are answered 503."""
    max_waiting_bytes: int = 64 * 2**20
    """Most bytes of tensors that wait for one model, likewise."""
    deadline: float = 30.0
    """In which a request is answered once it was read, else it is answered 504; its header `Request-Timeout` may say less."""
    max_tokens: int = 2048
    """Most tokens that one generation may be asked for; more are answered 400."""
    max_generations: int = 4
    """Most generations at once, each with a thread of its own; one more is answered 503."""
    keys: Path | None = None
    """A file with API keys, as `maasflow keys` makes it; from the first key in it on, every request needs one."""
    redis: str | None = None
    """The address of a Redis in which servers share what keys have left; without, each server counts for itself."""
    tls_cert: Path | None = None
    """A certificate chain in PEM, with which the server speaks TLS alone."""
    tls_key: Path | None = None
    """Its private key."""
    trust: Path | None = None
    """A PEM file with public keys: a version that none of them signed is not served. It is read again for each version."""
    insecure: bool = False
    """Listen on other addresses than this machine's own although no key is needed."""
    payloads: Path | None = None
    """The folder for what recipes' `serving.payloads` has the server keep; nothing is kept without."""
    payload_bytes: int = 2**30
    """Most bytes that are kept of one model; the oldest make room."""
    comparisons: Path | None = None
    """The folder for what is found out about champions and their challengers; without, it is told of while the server runs alone."""
    read: float = 30.0
    """In which a request must be sent whole, else it is answered 408."""
    keep_alive: float = 75.0
    """For which a connection is kept after an answer, while no other request comes."""
    watch: float = 1.0
    """How often the pointers of the served folder are looked at."""
    drain: float = 0.5
    """How long, after SIGTERM, new connections are still answered, so that load balancers see that ready is 503."""
    grace: float = 30.0
    """How long, after SIGTERM, requests in flight may take to finish."""
    access_log: bool = False
    """Log each request as one line of JSON; without it only failures of the server itself are logged."""
