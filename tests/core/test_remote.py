"""Remote files: the mirror first, then a download that is whole, right and told clearly where it fails."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tasks.core.errors import MaasflowError, SourceError, UnreachableError
from tasks.core.remote import is_allowed, place_in_mirror, remote_file
from tasks.core.workspace import Workspace

CONTENT = b"text,label\n" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """A file, a redirect to it and one to a place without encryption, a broken connection, and any status by its number."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.strip("/")
        places = {"moved": "/reviews.csv", "insecure": "http://reviews.invalid/reviews.csv"}
        self.send_response(302 if path in places else int(path) if path.isdigit() else 200)
        if path in places:
            self.send_header("Location", places[path])
        self.send_header("Content-Length", str(len(CONTENT) if path in ("reviews.csv", "broken") else 0))
        self.end_headers()
        if path in ("reviews.csv", "broken"):
            self.wfile.write(CONTENT if path == "reviews.csv" else CONTENT[:100])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("MAASFLOW_MIRROR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def downloads(workspace: Workspace) -> list[str]:
    return [path.name for path in (workspace.state / "downloads").rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["reviews.csv", "moved"])
def test_a_download_is_the_file(workspace: Workspace, server: str, path: str) -> None:
    assert remote_file(f"{server}/{path}", workspace, digest=DIGEST).read_bytes() == CONTENT
    assert downloads(workspace) == [path]


def test_only_a_file_with_a_known_digest_is_not_asked_for_again(workspace: Workspace, server: str) -> None:
    for _ in range(2):
        file = remote_file(f"{server}/reviews.csv", workspace, digest=DIGEST)
    assert Server.asked == ["/reviews.csv"]
    remote_file(f"{server}/reviews.csv", workspace)
    assert len(Server.asked) == 2
    file.write_bytes(b"damaged")
    assert remote_file(f"{server}/reviews.csv", workspace, digest=DIGEST).read_bytes() == CONTENT


def test_the_mirror_comes_first(workspace: Workspace, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAASFLOW_MIRROR", "mirror")
    for place in ("people/reviews.csv", "127.0.0.1/reviews.csv"):
        file = workspace.root / "mirror" / place
        file.parent.mkdir(parents=True)
        file.write_text(place)
    url = f"{server}/reviews.csv"
    assert remote_file(url, workspace, mirror="people/reviews.csv").read_text() == "people/reviews.csv"
    assert remote_file(url, workspace).read_text() == "127.0.0.1/reviews.csv"
    with pytest.raises(
        SourceError,
        match=r"people/reviews\.csv in MAASFLOW_MIRROR, for http://127.0.0.1:\d+/reviews.csv, is not the file that the dataset was made for",
    ):
        remote_file(url, workspace, digest=DIGEST, mirror="people/reviews.csv")
    assert not Server.asked
    assert remote_file(url, workspace, mirror="elsewhere.csv").read_bytes() == CONTENT


def test_a_mirror_that_is_not_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAASFLOW_MIRROR", "nowhere")
    with pytest.raises(SourceError, match="MAASFLOW_MIRROR is nowhere, where there is no folder"):
        remote_file("https://example.org/x.csv", workspace)


@pytest.mark.parametrize(
    ("path", "kind", "what", "do"),
    [
        ("404", SourceError, "the server answers 404 Not Found", "correct `source.url`"),
        ("403", SourceError, "the server answers 403 Forbidden", "`source.path` instead of `source.url`"),
        ("503", UnreachableError, "the server answers 503 Service Unavailable", "try again later"),
        ("429", UnreachableError, "the server answers 429 Too Many Requests", "try again later"),
        (
            "broken",
            UnreachableError,
            "the connection ended after 100 of 11,000 bytes",
            "set MAASFLOW_MIRROR to a folder with 127.0.0.1/broken",
        ),
        ("insecure", SourceError, "it redirects to http://reviews.invalid/reviews.csv, which is not https", "MAASFLOW_MIRROR"),
    ],
)
def test_a_failure_names_the_address_and_the_ways_out_and_leaves_nothing(
    workspace: Workspace, server: str, path: str, kind: type[MaasflowError], what: str, do: str
) -> None:
    with pytest.raises(SourceError) as caught:
        remote_file(f"{server}/{path}", workspace)
    assert type(caught.value) is kind
    assert caught.value.what.startswith(f"{server}/{path} cannot be fetched: ")
    assert what in caught.value.what
    assert do in caught.value.do
    assert downloads(workspace) == []


def test_another_file_than_expected_is_refused_and_the_old_one_stays(workspace: Workspace, server: str) -> None:
    kept = remote_file(f"{server}/reviews.csv", workspace)
    with pytest.raises(SourceError, match=f"its SHA-256 is {DIGEST}, expected 0000"):
        remote_file(f"{server}/reviews.csv", workspace, digest="0" * 64)
    assert kept.read_bytes() == CONTENT
    assert downloads(workspace) == ["reviews.csv"]


def test_a_server_that_is_not_there(workspace: Workspace, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace.root / "mirror").mkdir()
    monkeypatch.setenv("MAASFLOW_MIRROR", "mirror")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x.csv"
        with pytest.raises(
            UnreachableError, match=r"cannot be fetched: MAASFLOW_MIRROR has no people/x\.csv, and the server does not answer"
        ):
            remote_file(url, workspace, mirror="people/x.csv")


def test_what_is_allowed_and_where_a_mirror_keeps_it() -> None:
    assert is_allowed("https://example.org/x.csv")
    assert not any(map(is_allowed, ("http://example.org/x.csv", "file:///etc/hosts", "ftp://example.org/x", "x.csv", "https:///x.csv", "")))
    assert place_in_mirror("https://example.org:8443/a%20b/x.csv?raw=1") == "example.org/a b/x.csv"
