"""TLS, on both ports: who trusts the certificate is answered, and nobody in plain text."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.serving import open_inference_pb2 as pb
from deploy.serving.__main__ import main
from tests.serving.conftest import Running, Served, Start

ROW = {"instances": [{"age": 40, "height": 1.7, "color": "blue"}]}
PREDICT = "/v1/models/people/predict"
LIVE = "/inference.GRPCInferenceService/ServerLive"


@dataclass(frozen=True)
class Pair:
    """A certificate for this machine that signs itself, and its private key, as files."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> "Pair":
        folder.mkdir()
        pair = cls(folder / "cert.pem", folder / "key.pem")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        begin = datetime.now(UTC) - timedelta(hours=1)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), begin, begin + timedelta(days=1))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        pair.certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, plain))
        return pair


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.make(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path: Path) -> Pair:
    return Pair.make(tmp_path / "theirs")


@pytest.fixture
def running(served: Served, start: Start, pair: Pair) -> Running:
    served.serve("people", "1")
    return start("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--grpc-port", "0")


def client_of(running: Running, trusted: Pair) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(trusted.certificate))
    return httpx.Client(base_url=running.client.base_url, verify=context, trust_env=False)


def ask(running: Running, credentials: grpc.ChannelCredentials | None) -> bool:
    where = running.line.partition("gRPC on ")[2].split(")")[0]
    with grpc.secure_channel(where, credentials) if credentials else grpc.insecure_channel(where) as channel:
        live = channel.unary_unary(LIVE, response_deserializer=pb.ServerLiveResponse.FromString)(b"", 10).live
        assert isinstance(live, bool)
        return live


def test_http_for_who_trusts_the_certificate(running: Running, pair: Pair) -> None:
    with client_of(running, pair) as client:
        assert client.post(PREDICT, json=ROW).status_code == 200
        assert client.post(PREDICT, content=b"x" * 20_000_000, headers={"Content-Type": "application/json"}).status_code == 413


def test_grpc_for_who_trusts_the_certificate(running: Running, pair: Pair) -> None:
    assert ask(running, grpc.ssl_channel_credentials(pair.certificate.read_bytes()))


def test_who_trusts_another_certificate_does_not_go_on(running: Running, stranger: Pair) -> None:
    with client_of(running, stranger) as client, pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        client.get("/v2")
    with pytest.raises(grpc.RpcError) as caught:
        ask(running, grpc.ssl_channel_credentials(stranger.certificate.read_bytes()))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_nobody_is_answered_in_plain_text(running: Running, pair: Pair) -> None:
    address = str(running.client.base_url).replace("https://", "http://")
    with httpx.Client(trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.get(f"{address}/v2")
    with pytest.raises(grpc.RpcError) as caught:
        ask(running, None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with client_of(running, pair) as client:
        assert client.get("/v2").status_code == 200, "and others are answered on"


def test_a_key_of_another_certificate_is_one_message(
    served: Served, pair: Pair, stranger: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--served", str(served.folder), "--port", "0")
    assert main([*options, "--tls-cert", str(pair.certificate), "--tls-key", str(stranger.key)]) == 1
    assert "cannot speak TLS" in capsys.readouterr().err
    assert main([*options, "--tls-cert", str(pair.certificate)]) == 1
    assert "give --tls-cert and --tls-key" in capsys.readouterr().err
