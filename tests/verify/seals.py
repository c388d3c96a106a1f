"""Makes ARC Sets for the recipes of sign.py, with dkimpy's canonical forms and nobody's idea of a chain but
the recipe's: it seals what is there, right or wrong."""

import hashlib
from base64 import b64encode

import dkim
from dkim.canonicalization import Relaxed
from dkim.crypto import RSASSA_PKCS1_v1_5_sign
from nacl.signing import SigningKey

NAMES = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")


def arc_set(message: bytes, private: object, tags: dict[str, str], algorithm: str, signature: bytes) -> bytes:
    """One set for the top of `message`: `signature` is its ARC-Message-Signature, made already. `tags`: i= of
    all three; d= s= cv= t= (empty: none) z= of the seal and, as `seal-h`, its h=; `results` of the
    sealer (+ for a blank) and what they begin with instead of i= (`instance`); `over`: the instances that the
    seal covers besides its own, by commas (without, all below its own)."""
    number = int(tags["i"])
    said = tags.get("results", "spf=pass+smtp.mailfrom=sender.example;+dmarc=pass").replace("+", " ")
    instance = tags.get("instance", f"i={number}").replace("+", " ")
    results = f"ARC-Authentication-Results: {instance}; relay.example; {said}\r\n".encode()
    named = {"cv": "none" if number == 1 else "pass", "t": "1700000000", **tags, "a": algorithm}
    words = [
        f"{name}={named[name]}" for name in ("i", "a", "t", "z", "cv", "d", "s", "seal-h") if named.get(name)
    ]
    head = ("ARC-Seal: " + "; ".join(words) + "; b=").replace("seal-h=", "h=").encode()
    over = [int(each) for each in tags["over"].split(",") if each] if "over" in tags else range(1, number)
    fields = [field for each in over for name in NAMES for field in _found(message, name, each)]
    fields += [_split(results), _split(signature), _split(head)]
    octets = b"".join(name + b":" + value for name, value in Relaxed.canonicalize_headers(fields))
    return head + signed(octets, private) + b"\r\n" + signature + results


def signed(octets: bytes, private: object) -> bytes:
    """b= for these octets, whose last CR LF is not signed (RFC 6376 section 3.7, RFC 8463 section 3)."""
    digest = hashlib.sha256(octets.removesuffix(b"\r\n"))
    if isinstance(private, SigningKey):
        return b64encode(private.sign(digest.digest()).signature)
    return b64encode(RSASSA_PKCS1_v1_5_sign(digest, private))


def _split(field: bytes) -> tuple[bytes, bytes]:
    name, _, value = field.partition(b":")
    return name, value if value.endswith(b"\r\n") else value + b"\r\n"


def _found(message: bytes, name: bytes, number: int) -> list[tuple[bytes, bytes]]:
    headers, _ = dkim.rfc822_parse(message)
    wanted = f"i={number};".encode()
    return [
        (key, value)
        for key, value in headers
        if key.lower() == name and value.replace(b" ", b"").startswith(wanted)
    ]
