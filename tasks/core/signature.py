"""Signatures of bundles: who released one. The manifest is signed, which has the digests of all other files.

Ed25519 (RFC 8032) over the bytes of the manifest, 64 bytes in a file beside it, so that others can check it with
`openssl pkeyutl -verify -rawin -pubin -inkey KEY.pub -in bundle.json -sigfile bundle.json.sig`. It takes the package cryptography, and
no network.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from tasks.core.errors import BundleError, ConfigError, MaasflowError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE: Final = "bundle.json.sig"
SETTING: Final = "MAASFLOW_SIGNING_KEY"
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)


@dataclass(frozen=True)
class Trust:
    """The public keys by one of which a bundle must be signed: several while one takes the place of another."""

    keys: "tuple[Ed25519PublicKey, ...]"

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a PEM file. Raises MaasflowError."""
        _require_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - where signatures are wanted alone
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

        try:
            keys = [load_pem_public_key(block[0]) for block in _PEM.finditer(path.read_bytes())]
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the public keys in {path} cannot be read: {error}", "give the .pub files of maasflow keys signing"
            ) from None
        found = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
        if not found or len(found) < len(keys):
            what = f"{path} has {len(keys)} public keys, of which {len(found)} are of the kind Ed25519"
            raise ConfigError(what, "give the .pub files of maasflow keys signing, one below the other, and nothing else")
        return cls(found)

    def check(self, folder: Path, content: bytes) -> None:
        """Raises BundleError unless the content of the folder's manifest is signed."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - as above

        try:
            signature = (folder / SIGNATURE).read_bytes()
        except FileNotFoundError:
            raise BundleError(f"{folder} has no signature", f"release it again with {SETTING} set") from None
        for key in self.keys:
            try:
                key.verify(signature, content)
            except InvalidSignature:
                continue
            return
        raise BundleError(f"{folder} is signed by none of the keys that are trusted", "release it again with a key that is")


def sign_if_configured(folder: Path) -> bool:
    """Sign a bundle's manifest as it is now, where a private key is configured. Raises ConfigError for one that cannot be used."""
    setting = os.environ.get(SETTING)
    if not setting:
        return False
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    do = "make a key pair with maasflow keys signing FILE"
    try:
        key = load_pem_private_key(Path(setting).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{SETTING} is {setting}, which is no private key that can be read: {error}", do) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{SETTING} is {setting}, a key of another kind than Ed25519", do)
    (folder / SIGNATURE).write_bytes(key.sign((folder / "bundle.json").read_bytes()))
    return True


def create_signing_key(path: Path) -> Path:
    """Write a private key, which only its owner may read, and beside it the public one; where that is. Raises MaasflowError."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key, public = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    form, unprotected = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    try:
        private = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MaasflowError(f"{path} exists already", "choose another file: a private key is never written over") from None
    except OSError as error:
        raise MaasflowError(f"{path} cannot be written: {error.strerror}", "choose a file in a folder of yours") from None
    with open(private, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(key.private_bytes(serialization.Encoding.PEM, form, unprotected))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def _require_cryptography() -> None:
    """Raises MaasflowError."""
    try:
        import cryptography  # noqa: F401, PLC0415 - where signatures are wanted alone
    except ImportError:
        raise MaasflowError("signatures need the package 'cryptography', which is not installed", "pip install cryptography") from None
