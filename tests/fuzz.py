"""What no client should send: `make fuzz`, or `python -m tests.fuzz [SECONDS]`.

Schemathesis asks every route of `/openapi.json` for what fits and for what does not, and raw bytes that are almost requests follow. No
answer may be a 500, and the server must still be there. Schemathesis has an environment of its own, as its dependencies are its own.
"""

import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.serving.conftest import IMAGE, Served, end, start_server
from tests.texts import write_classifier, write_language_model

FOLDER: Final = Path(".fuzz")
SCHEMATHESIS: Final = "schemathesis==4.32.5"
CHECKS: Final = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
REQUEST: Final = (
    b"POST /v2/models/people/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 95\r\n\r\n"
    b'{"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}   '
)


def schemathesis() -> Path:
    """The command, installed on its first use."""
    command = FOLDER / "bin" / "schemathesis"
    if not command.is_file():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        subprocess.run([FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", SCHEMATHESIS], check=True)
    return command


def almost(draw: random.Random) -> bytes:
    """The bytes of a request with a few of them changed, left out, or said twice."""
    sent = bytearray(REQUEST)
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(sent))
        match draw.randrange(4):
            case 0:
                sent[place] = draw.randrange(256)
            case 1:
                del sent[place : place + draw.randint(1, 9)]
            case 2:
                sent[place:place] = sent[place : place + draw.randint(1, 30)]
            case _:
                sent[place:place] = draw.choice([b"\r\n", b"\x00", b"{", b"[" * 50, b"9" * 30, b"\xff\xfe", b"NaN"])
    return bytes(sent)


def send_almost_requests(port: int, count: int, seed: int = 0) -> None:
    """Ends with an error where one is answered by a 500, or not as HTTP."""
    draw = random.Random(seed)
    for number in range(count):
        sent = almost(draw)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(sent)
            try:
                answer = connection.recv(2**16)
            except ConnectionResetError:
                continue
        if answer and (not answer.startswith(b"HTTP/1.1 ") or answer.startswith(b"HTTP/1.1 500")):
            sys.exit(f"number {number} of seed {seed}, {sent!r}, was answered by {answer!r}")


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    with tempfile.TemporaryDirectory() as scratch:
        served = Served(Path(scratch) / "served")
        served.serve("marks", "1", IMAGE)
        served.serve("people", "3")
        write_classifier(served.folder / "moods" / "1")
        write_language_model(served.folder / "writer" / "2")
        served.point("moods", "1")
        served.point("writer", "2")
        log = Path(scratch) / "server.log"
        running = start_server(served.folder, log, "--max-tokens", "64", "--read", "0.3")
        try:
            address = str(running.client.base_url)
            command = [schemathesis(), "run", f"{address}/openapi.json", "--checks", CHECKS, "--max-time", str(seconds), "--workers", "2"]
            found = subprocess.run([*map(str, command), "--suppress-health-check", "all", "--no-color"], check=False).returncode
            send_almost_requests(running.client.base_url.port or 0, 5 * seconds)
            alive = running.client.get("/v2/health/live").status_code == 200 and running.process.poll() is None
        finally:
            end(running)
        said = log.read_text()
    if "Traceback" in said or not alive:
        sys.exit(f"the server failed:\n{said[-4000:]}")
    sys.exit(found)


if __name__ == "__main__":
    main()
