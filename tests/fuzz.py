"""What no client should send: `make fuzz`, or `python -m tests.fuzz [SECONDS]`.

Schemathesis asks every route of `/openapi.json` for what fits and for what does not, half of the time with an API key that is demanded,
and bytes that are almost requests of HTTP or messages of gRPC follow. No answer may be a 500, and the server must still be there.
Schemathesis has an environment of its own, as its dependencies are its own.
"""

import gzip
import random
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import grpc

from deploy.serving import open_inference_pb2 as pb
from tasks.core.api_keys import create_key
from tests.serving.conftest import IMAGE, Running, Served, end, start_server
from tests.texts import write_classifier, write_language_model

FOLDER: Final = Path(".fuzz")
SCHEMATHESIS: Final = "schemathesis==4.32.5"
CHECKS: Final = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request as it is sent."""
    lines = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{told}\r\n".encode() + body


JSON: Final = b'{"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}'
BINARY: Final = b'{"inputs": [{"name": "x", "shape": [1, 6], "datatype": "FP32", "parameters": {"binary_data_size": 24}}]}'
FORM: Final = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nage,height,color\n40,1.7,blue\n\r\n--b--\r\n'
REQUESTS: Final = (
    post("/v2/models/people/infer", JSON),
    post("/v2/models/people/infer", BINARY + bytes(24), Inference_Header_Content_Length=str(len(BINARY))),
    post("/v2/models/people/infer", gzip.compress(JSON), Content_Encoding="gzip"),
    post("/v1/models/people/predict", FORM, **{"Content-Type": "multipart/form-data; boundary=b"}),
    post("/invocations/people", b"age,height,color\n40,1.7,blue\n", **{"Content-Type": "text/csv"}),
    post("/v1/models/writer/generate", b'{"prompt": "a", "max_tokens": 4, "stream": true}'),
)
TENSOR: Final = {"name": "x", "datatype": "FP32", "shape": [1, 6]}
MESSAGES: Final = (
    pb.ModelInferRequest(model_name="people", inputs=[{**TENSOR, "contents": {"fp32_contents": [1.0] * 6}}]).SerializeToString(),
    pb.ModelInferRequest(model_name="people", inputs=[TENSOR], raw_input_contents=[bytes(24)], id="a").SerializeToString(),
)


def schemathesis() -> Path:
    """The command, installed on its first use."""
    command = FOLDER / "bin" / "schemathesis"
    if not command.is_file():
        subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
        subprocess.run([FOLDER / "bin" / "python", "-m", "pip", "install", "--quiet", SCHEMATHESIS], check=True)
    return command


def almost(draw: random.Random, whole: bytes) -> bytes:
    """It with a few of its bytes changed, left out, or said twice."""
    sent = bytearray(whole)
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
        sent = almost(draw, draw.choice(REQUESTS))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(sent)
            try:
                answer = connection.recv(2**16)
            except ConnectionResetError:
                continue
        if answer and (not answer.startswith(b"HTTP/1.1 ") or answer.startswith(b"HTTP/1.1 500")):
            sys.exit(f"number {number} of seed {seed}, {sent!r}, was answered by {answer!r}")


def send_almost_messages(address: str, count: int, seed: int = 0) -> None:
    """Ends with an error where one is answered by a code of the server's own failure."""
    draw = random.Random(seed)
    with grpc.insecure_channel(address) as channel:
        for number in range(count):
            sent = almost(draw, draw.choice(MESSAGES))
            error = channel.unary_unary(INFER).future(sent, 60).exception()
            if error and error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                sys.exit(f"message {number} of seed {seed}, {sent!r}, was answered by {error.code()}: {error.details()}")


def ask_what_fits_and_what_does_not(running: Running, seconds: int, secret: str | None) -> int:
    """Schemathesis' exit code."""
    command = [schemathesis(), "run", f"{running.client.base_url}/openapi.json", "--checks", CHECKS, "--max-time", str(seconds)]
    # One worker, as Python 3.11 fails where two threads parse at once (python/cpython#106905), which hypothesis does.
    command += ["--workers", "1", "--suppress-health-check", "all", "--no-color"]
    if secret:
        command += ["--header", f"Authorization: Bearer {secret}"]
    return subprocess.run([*map(str, command)], check=False).returncode


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
        log, keys = Path(scratch) / "server.log", Path(scratch) / "keys.json"
        running = start_server(served.folder, log, "--max-tokens", "64", "--read", "0.3", "--grpc-port", "0", "--keys", str(keys))
        try:
            found = ask_what_fits_and_what_does_not(running, seconds // 2, None)
            send_almost_requests(running.client.base_url.port or 0, 5 * seconds)
            send_almost_messages(running.line.partition("gRPC on ")[2].split(")")[0], 5 * seconds)
            _, secret = create_key(keys, "fuzz", scopes=["infer", "admin"])
            found |= ask_what_fits_and_what_does_not(running, seconds // 2, secret)
            alive = running.client.get("/v2/health/live").status_code == 200 and running.process.poll() is None
        finally:
            end(running)
        said = log.read_text()
    if "Traceback" in said or not alive:
        sys.exit(f"the server failed:\n{said[-4000:]}")
    sys.exit(found)


if __name__ == "__main__":
    main()
