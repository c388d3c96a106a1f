"""ARC as functions: our seals hold for dkimpy and for ourselves, whatever is changed breaks them."""

from typing import NamedTuple

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from nacl.encoding import Base64Encoder
from nacl.signing import SigningKey

from libs.mail.headers import Finding, authentication_results, fields, head_length
from services.verify import arc
from services.verify.canonical import Body
from services.verify.sealing import Sealer, seal
from tests.verify import sign

NOW = 1_700_000_000.0  # dkimpy takes none of the future
RESULTS = authentication_results(
    "backup.example", [Finding("spf", "pass", (("smtp.mailfrom", "a.example"),))]
)


class Known(NamedTuple):
    kind: str
    records: tuple[str | tuple[int, str], ...] = ()


def record(name: str) -> str:
    return (sign.KEYS / f"{name}.txt").read_text().strip()


def rsa() -> Sealer:
    key = load_pem_private_key((sign.KEYS / "rsa2048.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return Sealer("backup.example", "rsa2048", key)


def ed25519() -> Sealer:
    seed = SigningKey((sign.KEYS / "ed25519.seed").read_bytes().strip(), Base64Encoder)
    return Sealer("list.example", "ed25519", Ed25519PrivateKey.from_private_bytes(bytes(seed)))


def check(message: bytes, kind: str = "ok") -> tuple[arc.Chain, arc.Checked]:
    """The chain in it; the selector says which key record there is."""
    head = message[: head_length(message)]
    found = tuple(fields(head))
    chain = arc.examine(head, found, NOW)
    keys = {name: Known(kind, (record(name.partition(".")[0]),)) for name in chain.key_names}
    return chain, arc.verify(head, Body(message[len(head) + 2 :]), found, chain, keys)


def sealed(message: bytes, *sealers: Sealer, results: bytes = RESULTS) -> bytes:
    for sealer in sealers:
        head = message[: head_length(message)]
        chain, checked = check(message)
        digest = Body(message[len(head) + 2 :]).hashed("relaxed")[0]
        message = seal(head, digest, chain, checked, results, sealer, NOW) + message
    return message


def test_a_message_without_arc_has_no_chain() -> None:
    assert check(sign.MESSAGE)[1] == arc.Checked(arc.Result.NONE)


def test_chains_of_ours_hold() -> None:
    """Section 5.1: one seal, three of two kinds of keys, and who sealed."""
    one = sealed(sign.MESSAGE, rsa())
    assert check(one)[1] == arc.Checked(arc.Result.PASS, 1, "", ("backup.example",), author=True)
    three = sealed(sign.MESSAGE, rsa(), ed25519(), rsa())
    sealers = ("backup.example", "list.example", "backup.example")
    assert check(three)[1] == arc.Checked(arc.Result.PASS, 3, "", sealers, author=True)


def test_dkimpy_finds_that_they_hold() -> None:
    """An implementation that is not ours agrees, over one seal and over three."""
    for sealers in ((rsa(),), (rsa(), rsa(), rsa())):
        result = dkimpy.arc_verify(
            sealed(sign.MESSAGE, *sealers), dnsfunc=lambda *_, **__: record("rsa2048").encode()
        )
        assert result[0] == dkimpy.CV_Pass, result


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"here are", b"here were", "message signature: body has changed"),
        (b"quarterly", b"yearly", "message signature: signature does not match"),
        (b"i=1; backup.example", b"i=1; other.example", "seal 2: signature does not match"),
        (b"cv=pass", b"cv=none", "cv= in seal is not pass"),
        (b"cv=none", b"cv=pass", "cv= in seal is not none"),
        (b"cv=pass", b"cv=fail", arc.FAILED_BEFORE),
        (b"ARC-Seal: i=1", b"ARC-Seal: i=2", "instance 2 comes twice"),
        (b"ARC-Seal: i=2", b"ARC-Seal: i=3", "instances are missing"),
        (b"ARC-Seal: i=2", b"ARC-Seal: i=0", "an instance is no number from 1 to 50"),
        (b"ARC-Seal: i=2", b"X-Seal: i=2", "instances are missing"),
        (b"cv=pass", b"cv=pass; h=from", "h= in seal"),
    ],
)
def test_what_is_changed_breaks_the_chain(old: bytes, new: bytes, reason: str) -> None:
    """Section 5.2: each step says what it found."""
    message = sealed(sign.MESSAGE, rsa(), ed25519())
    assert message.count(old) >= 1
    checked = check(message.replace(old, new, 1))[1]
    assert (checked.result, checked.reason, checked.lasting) == (arc.Result.FAIL, reason, True)


def test_dns_trouble_is_no_failure_for_good() -> None:
    """Nobody is told for ever that a chain failed because a key could not be had in this minute."""
    message = sealed(sign.MESSAGE, rsa())
    chain, checked = check(message, "timeout")
    assert (checked.result, checked.lasting) == (arc.Result.FAIL, False)
    head = message[: head_length(message)]
    assert seal(head, b"", chain, checked, RESULTS, rsa(), NOW) == b""


def test_a_bound_of_ours_is_no_failure_for_good() -> None:
    """Nobody is told for ever that a chain failed because it has more keys than we look at."""
    named = (Sealer("backup.example", f"rsa2048.{n}", rsa().key) for n in range(arc.KEYS + 1))
    message = sealed(sign.MESSAGE, *named)
    chain, checked = check(message)
    assert (checked.result, checked.reason, checked.lasting) == (arc.Result.FAIL, arc.TOO_MANY_KEYS, False)
    head = message[: head_length(message)]
    assert seal(head, b"", chain, checked, RESULTS, rsa(), NOW) == b""


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        (b"dmarc=pass", True),
        (b'x="; dmarc=fail"; dmarc=pass (dmarc=fail) "\\"; dmarc=fail"', True),
        (b'dmarc=pass; x="; dmarc=fail', False),
        (b"dmarc=pass; x=(; dmarc=fail", False),
        (b"dmarc=pass (a (b) c)", False),
        (b'dmarc=pass; x="\\"', False),
        (b"spf=pass", False),
    ],
)
def test_what_the_first_set_says_of_dmarc(said: bytes, passed: bool) -> None:
    """RFC 8601 section 2.2: what stands in comments and quotes says nothing, and where one has no end nobody
    can know what stands in it."""
    results = b"Authentication-Results: a.example; " + said + b"\r\n"
    assert check(sealed(sign.MESSAGE, rsa(), results=results))[1].began is passed


def test_a_chain_that_failed_is_sealed_as_failed_once() -> None:
    """Section 5.1: with cv=fail, over its own set only; behind that nobody seals any more."""
    broken = sealed(sign.MESSAGE, rsa()).replace(b"here are", b"here were")
    message = sealed(broken, ed25519())
    assert b"cv=fail" in message
    assert check(message)[1].reason == arc.FAILED_BEFORE
    assert sealed(message, rsa()) == message


def test_a_chain_is_not_made_longer_than_it_may_be() -> None:
    """Section 5.2 step 1: 50 instances, and more have failed."""
    message = sign.MESSAGE
    for number in range(arc.INSTANCES + 1):
        message = b"ARC-Seal: i=%d; a=rsa-sha256\r\n" % (number + 1) + message
    assert check(message)[1].reason == "too many instances"
    assert sealed(message, rsa()) == message


PIECES = st.sampled_from(
    [b"ARC-Seal:", b"ARC-Message-Signature:", b"ARC-Authentication-Results:", b" i=1;", b" i=2;", b"i=", b";",
     b" a=rsa-sha256;", b" b=AAAA;", b" bh=AAAA;", b" h=from:arc-seal;", b" h=from;", b" d=a.example;",
     b" s=s;", b" cv=none;", b" cv=pass;", b" cv=fail;", b"\r\n", b"\r\n ", b"\x00", b"\xff", b"(",
     b"From: a@b\r\n", b" t=x;", b" l=1;", b" c=x;", b"99", b"="]
)  # fmt: skip


@given(st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=60).map(b"".join))
def test_no_header_raises(head: bytes) -> None:
    """Whatever a stranger writes, it is a result."""
    found = tuple(fields(head))
    chain = arc.examine(head, found, NOW)
    keys = {name: Known("ok", (record("rsa2048"),)) for name in chain.key_names}
    assert arc.verify(head, Body(b""), found, chain, keys).result in arc.Result
