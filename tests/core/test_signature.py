"""Signatures of bundles: whose are taken, and what is said of all others."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks.core.bundle import Bundle
from tasks.core.errors import BundleError, ConfigError, MaasflowError
from tasks.core.signature import SETTING, SIGNATURE, Trust, create_signing_key, sign_if_configured
from tests.texts import write_classifier


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_classifier(tmp_path / "bundle").folder


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private key, which signs; the public one lies beside it."""
    create_signing_key(tmp_path / "key")
    monkeypatch.setenv(SETTING, str(tmp_path / "key"))
    return tmp_path / "key"


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def refused(folder: Path, trust: Trust) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder, trust=trust)
    return caught.value.what


def test_what_was_signed_is_taken(folder: Path, key: Path) -> None:
    assert sign_if_configured(folder)
    assert Bundle.open(folder, trust=Trust.read(public(key))).manifest.name == "moods"
    assert Bundle.open(folder).manifest.name == "moods"


def test_nothing_is_signed_where_no_key_is_configured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    assert not sign_if_configured(folder)
    assert not (folder / SIGNATURE).exists()


def test_what_is_not_signed_is_refused(folder: Path, key: Path) -> None:
    assert refused(folder, Trust.read(public(key))) == f"{folder} has no signature"


@pytest.mark.parametrize("signature", [b"", b"0" * 64, b"0" * 65])
def test_what_is_no_signature_is_refused(signature: bytes, folder: Path, key: Path) -> None:
    (folder / SIGNATURE).write_bytes(signature)
    assert refused(folder, Trust.read(public(key))) == f"{folder} is signed by none of the keys that are trusted"


def test_a_manifest_that_was_changed_since_is_refused_before_it_is_read(folder: Path, key: Path) -> None:
    sign_if_configured(folder)
    (folder / "bundle.json").write_text("{")
    assert "signed by none of the keys" in refused(folder, Trust.read(public(key)))


def test_a_file_that_was_changed_since_is_refused(folder: Path, key: Path) -> None:
    sign_if_configured(folder)
    (folder / "variants" / "fp32.onnx").write_bytes(b"another")
    assert "differs from its digest" in refused(folder, Trust.read(public(key)))


def test_a_key_takes_the_place_of_another_while_both_are_trusted(folder: Path, key: Path, tmp_path: Path) -> None:
    sign_if_configured(folder)
    other = create_signing_key(tmp_path / "other")
    assert "signed by none of the keys" in refused(folder, Trust.read(other))
    other.write_bytes(other.read_bytes() + public(key).read_bytes())
    assert Bundle.open(folder, trust=Trust.read(other)).manifest.name == "moods"


def test_the_private_key_is_its_owners_alone_and_never_written_over(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    with pytest.raises(MaasflowError, match="exists already"):
        create_signing_key(key)
    assert key.read_bytes() == before


def elliptic() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_public_keys_of_another_kind_are_refused(key: Path) -> None:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    with public(key).open("ab") as file:
        file.write(elliptic().public_key().public_bytes(serialization.Encoding.PEM, form))
    with pytest.raises(ConfigError, match="has 2 public keys, of which 1 are of the kind Ed25519"):
        Trust.read(public(key))


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", None])
def test_a_file_with_no_public_key_is_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "trusted.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"trusted\.pem"):
        Trust.read(tmp_path / "trusted.pem")


def test_the_private_key_is_not_taken_for_a_public_one(key: Path) -> None:
    with pytest.raises(ConfigError):
        Trust.read(key)


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_a_private_key_that_cannot_be_used_stops_the_release(content: bytes | None, folder: Path, key: Path) -> None:
    key.unlink()
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(ConfigError, match=SETTING):
        sign_if_configured(folder)


def test_a_private_key_of_another_kind_stops_the_release(folder: Path, key: Path) -> None:
    form, open_to_all = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(elliptic().private_bytes(serialization.Encoding.PEM, form, open_to_all))
    with pytest.raises(ConfigError, match="another kind than Ed25519"):
        sign_if_configured(folder)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_others_can_check_it_with_openssl(folder: Path, key: Path) -> None:
    sign_if_configured(folder)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(public(key))]
    command += ["-in", str(folder / "bundle.json"), "-sigfile", str(folder / SIGNATURE)]
    assert "Verified Successfully" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
