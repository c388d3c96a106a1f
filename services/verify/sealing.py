"""Our ARC Set (RFC 8617 section 5.1): the results we write, signed, so that whoever hears them from the
primary can know that they are ours.

Ours comes last, behind all that was sealed before; what we strip (results that claim our id) and what is put
on top of the mail on its way (trace fields) is not covered.
"""

import textwrap
from base64 import b64encode
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from libs.mail.headers import fields
from services.verify import arc
from services.verify.canonical import canonical_field, signed_fields

# What makes a message what it is (RFC 6376 section 5.4.1), and the signatures of others.
_SIGNED = frozenset(
    b"""from sender reply-to to cc subject date message-id in-reply-to references mime-version content-type
    content-transfer-encoding content-disposition content-id list-id list-unsubscribe list-unsubscribe-post
    list-post resent-from resent-to resent-date resent-message-id dkim-signature""".split()
)
_PREFIX, _FOLD = b"Authentication-Results: ", "\r\n\t"


class Sealer(NamedTuple):
    """Who seals: the key whose record is at `selector`._domainkey.`domain`."""

    domain: str
    selector: str
    key: RSAPrivateKey | Ed25519PrivateKey


def seal(
    head: bytes,
    digest: bytes,
    chain: arc.Chain,
    checked: arc.Checked,
    results: bytes,
    sealer: Sealer,
    now: float,
) -> bytes:
    """The three fields, with CR LF; none where the chain had failed before, where it cannot be known now, or
    where it is as long as it may be. `head`: the header as received; `digest`: SHA-256 of its body, relaxed;
    `results`: our Authentication-Results; `now`: wall seconds UTC."""
    number = chain.instances + 1
    if number > arc.INSTANCES or not checked.lasting or chain.defect == arc.FAILED_BEFORE:
        return b""
    algorithm = "rsa-sha256" if isinstance(sealer.key, RSAPrivateKey) else "ed25519-sha256"
    who = f"i={number}; a={algorithm}; d={sealer.domain}; s={sealer.selector}; t={int(now)}"
    said = b"ARC-Authentication-Results: i=%d; %s" % (number, results.removeprefix(_PREFIX))
    found = tuple(fields(head))
    names = [name for field in found if (name := field.name.lower()) in _SIGNED]
    message = _unsigned(
        "ARC-Message-Signature",
        who,
        "c=relaxed/relaxed",
        "h=" + f":{_FOLD}".join(name.decode() for name in names),
        f"bh={b64encode(digest).decode()}",
    )
    signed = signed_fields(head, found, names, relaxed=True) + _canonical(message)
    message = _signed(message, signed, sealer)
    last = _unsigned("ARC-Seal", who, f"cv={checked.result}")
    covered = chain.sets if checked.result is arc.Result.PASS else ()  # section 5.1.2: not one that failed
    signed = arc.sealed(head, covered) + _canonical(said) + _canonical(message) + _canonical(last)
    return _signed(last, signed, sealer) + message + said


def _unsigned(name: str, *tags: str) -> bytes:
    return f"{name}: {(';' + _FOLD).join((*tags, 'b='))}\r\n".encode()


def _signed(field: bytes, octets: bytes, sealer: Sealer) -> bytes:
    """`field` with the signature of `octets`, whose last CR LF is not signed, in its empty b=."""
    digest = sha256(octets.removesuffix(b"\r\n")).digest()
    if isinstance(sealer.key, RSAPrivateKey):
        signature = sealer.key.sign(digest, PKCS1v15(), Prehashed(SHA256()))
    else:
        signature = sealer.key.sign(digest)  # RFC 8463 section 3
    lines = textwrap.wrap(b64encode(signature).decode(), 70)
    return field.removesuffix(b"\r\n") + _FOLD.join(("", *lines)).encode() + b"\r\n"


def _canonical(field: bytes) -> bytes:
    return canonical_field(field, next(fields(field)), relaxed=True)
