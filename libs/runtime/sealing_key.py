"""The private key that we seal with, from PEM."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_LEAST = 1024  # bits of RSA: RFC 8301 section 3.2


class BadKey(ValueError):  # noqa: N818
    """A sentence that says what is wrong with it."""


def sealing_key(pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    """Raises BadKey."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey("this is no private key in PEM without a password") from error
    if isinstance(key, RSAPrivateKey):
        if key.key_size < _LEAST:
            raise BadKey(f"an RSA key needs {_LEAST} bits at least, not {key.key_size}")
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise BadKey("only RSA and Ed25519 keys can seal")
