"""The socket that is listened on, and what is spoken there."""

import socket
import ssl
from ipaddress import ip_address
from typing import Final

from deploy.serving.settings import Settings
from tasks.core.errors import MaasflowError

BACKLOG: Final = 2048
"""Connections that wait to be accepted. Those that come while the models are loaded are not refused."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises MaasflowError."""
    # The system would take a larger one modulo 65536.
    if not 0 <= port <= 65535:
        raise MaasflowError(f"cannot listen on port {port}: a port is a number from 0 to 65535", "choose another one with --port")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise MaasflowError(
            f"cannot listen on {host}: {error}", "choose an address of this machine, for example --host 127.0.0.1"
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise MaasflowError(
            f"cannot listen on {host}, port {port}: {error.strerror}", "stop what listens there, or choose another port with --port"
        ) from None
    return listener


def is_own(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ip_address(listener.getsockname()[0]).is_loopback


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Raises MaasflowError for files that are no certificate and its key."""
    if settings.tls_cert is None and settings.tls_key is None:
        return None
    if settings.tls_cert is None or settings.tls_key is None:
        raise MaasflowError("a certificate and its private key go together", "give --tls-cert and --tls-key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:
        what = f"cannot speak TLS with {settings.tls_cert} and {settings.tls_key}: {error.strerror or error}"
        raise MaasflowError(what, "give a certificate chain and its private key without a passphrase, both in PEM") from None
    return context


def address_of(listener: socket.socket, tls: ssl.SSLContext | None) -> str:
    return f"{'https' if tls else 'http'}://{place_of(listener)}"


def place_of(bound: socket.socket) -> str:
    """Its host and port."""
    host, port = bound.getsockname()[:2]
    return f"{f'[{host}]' if bound.family == socket.AF_INET6 else host}:{port}"


def shared_port(listener: socket.socket, port: int) -> socket.socket:
    """A socket that holds a port, 0 for a free one, on the address of `listener`, for processes of which each listens there by itself.

    Raises MaasflowError.
    """
    host = listener.getsockname()[0]
    try:
        # First without sharing: a port that another server shares is taken too.
        socket.create_server((host, port), family=listener.family).close()
        held = socket.socket(listener.family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((host, port))
    except (OSError, OverflowError):
        raise no_grpc(host, port) from None
    return held


def no_grpc(host: str, port: int) -> MaasflowError:
    """Of a port that is taken."""
    return MaasflowError(
        f"cannot listen on {host}, port {port}, for gRPC", "stop what listens there, or choose another port with --grpc-port"
    )
