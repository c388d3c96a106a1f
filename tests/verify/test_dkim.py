"""DKIM as a function: it agrees with dkimpy where both may answer, and costs what the message is long."""

import re
import time
from base64 import b64encode
from typing import NamedTuple

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.mail.headers import head_length
from services.verify.canonical import Body, relaxed_body, simple_body
from services.verify.dkim import Checked, Result, examine, verify
from tests.verify import sign

NOW = 1_800_000_000.0


class Known(NamedTuple):
    kind: str
    records: tuple[str | tuple[int, str], ...] = ()


def key(name: str) -> str:
    return (sign.KEYS / f"{name}.txt").read_text().strip()


def check(message: bytes, record: str) -> tuple[Checked, ...]:
    head = message[: head_length(message)]
    examined = examine(head, NOW)
    keys = {one.key_name: Known("ok", (record,)) for one in examined.signatures}
    return verify(head, Body(message[len(head) + 2 :]), examined, keys)


BODIES = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"  ", b"b c"]), max_size=30).map(
    lambda parts: b"".join(parts) + b"\r\n"
)


def blocks(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@given(BODIES, st.integers(1, 9))
def test_bodies_are_canonicalised_as_dkimpy_does(body: bytes, size: int) -> None:
    """RFC 6376 sections 3.4.3 and 3.4.4: two implementations agree on every body that SMTP can carry, in
    whatever blocks it comes."""
    assert b"".join(simple_body(blocks(body, size))) == Simple.canonicalize_body(body)
    assert b"".join(relaxed_body(blocks(body, size))) == Relaxed.canonicalize_body(body)


@given(st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r", b"\n"]), max_size=12).map(b"".join))
def test_blocks_make_no_difference(body: bytes) -> None:
    """Also with lone CR and LF, which no mail of ours has."""
    for form in (simple_body, relaxed_body):
        whole = b"".join(form([body]))
        assert all(b"".join(form(blocks(body, size))) == whole for size in range(1, len(body) + 1))


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" \r\n", b" \r\n", b""),
        (b"a", b"a\r\n", b"a\r\n"),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),
        (b"a\r\r\n\r\n", b"a\r\r\n", b"a\r\r\n"),
    ],
)
def test_bodies_of_the_rfc(body: bytes, simple: bytes, relaxed: bytes) -> None:
    """RFC 6376 section 3.4.5 and the empty bodies of 3.4.3 and 3.4.4."""
    assert (b"".join(simple_body([body])), b"".join(relaxed_body([body]))) == (simple, relaxed)


CHANGES = st.sampled_from(
    [b"From", b"here", b"  ", b"\r\n\tfigures", b"d=sender", b"bh=", b"; s=", b"Ann,\r\n", b" \r\n"]
)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["simple/simple", "relaxed/relaxed", "relaxed/simple", "simple/relaxed"]),
    st.sampled_from(["from", "from:to", "subject:from:x-none", "from:from:date"]),
    st.lists(st.tuples(CHANGES, st.sampled_from([b"", b" ", b"\t", b"x", b"\r\n "])), max_size=1),
)
def test_results_agree_with_dkimpy(policy: str, names: str, changes: list[tuple[bytes, bytes]]) -> None:
    """A message signed by dkimpy, perhaps changed on the way: both verifiers pass it or neither does."""
    message = sign.made([f"sign ed25519 d=sender.example s=ed c={policy} h={names}"])
    for old, new in changes:
        message = message.replace(old, new + old, 1)
    record = key("ed25519")
    try:
        theirs = dkimpy.DKIM(message).verify(dnsfunc=lambda name, timeout: record.encode())
    except dkimpy.DKIMException:
        theirs = False
    ours = check(message, record)
    assert (bool(ours) and ours[0].result is Result.PASS) is theirs


def test_a_key_in_the_older_form_is_read() -> None:
    """RFC 6376 section 3.6.1: RSAPublicKey, and the SubjectPublicKeyInfo that everybody publishes."""
    private = load_pem_private_key((sign.KEYS / "rsa2048.pem").read_bytes(), None)
    message = sign.made(["sign rsa2048 d=sender.example s=rsa"])
    for form in (PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo):
        der = private.public_key().public_bytes(Encoding.DER, form)
        assert check(message, "p=" + b64encode(der).decode())[0].result is Result.PASS


@pytest.mark.parametrize(("bits", "exponent"), [(16_384, 65537), (2048, 2**100 + 1), (8192, 2**33 + 1)])
def test_a_key_that_is_dear_is_not_used(bits: int, exponent: int) -> None:
    """A stranger's key may not cost more than its message: neither a huge modulus nor a huge exponent."""
    public = RSAPublicNumbers(exponent, 2**bits - 1).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    message = sign.made(["sign rsa2048 d=sender.example s=rsa"])
    began = time.process_time()
    checked = check(message, "p=" + b64encode(der).decode())
    assert time.process_time() - began < 0.2
    assert checked[0].result in (Result.POLICY, Result.PERMERROR)


def test_a_header_over_its_limits_is_a_permerror() -> None:
    """Over 500 fields or 128 kB of header: nothing in it is verified, and it is said so."""
    signed = sign.made(["sign ed25519 d=sender.example s=ed"])
    assert check(b"X: y\r\n" * 500 + signed, key("ed25519")) == (
        Checked(Result.PERMERROR, "too many header fields"),
    )
    assert check(b"X: " + b"y" * 128_000 + b"\r\n" + signed, key("ed25519")) == (
        Checked(Result.PERMERROR, "header too large"),
    )
    plain = sign.MESSAGE
    assert check(b"X: y\r\n" * 500 + plain, "") == (Checked(Result.PERMERROR, "too many header fields"),)
    assert check(b"X: y\r\n" * 490 + plain, "") == ()


HOSTILE_HEADS = [
    b"DKIM-Signature: b=" + b" " * 120_000,
    b"DKIM-Signature: v=1; a=ed25519-sha256; d=sender.example; s=ed; bh=AAAA; b=" + b"A \r\n " * 24_000,
    b"DKIM-Signature: v=1; a=ed25519-sha256; d=sender.example; s=e; bh=A; b=AAAA; h=from:" + b"a:" * 60_000,
    b"DKIM-Signature: " + b";" * 120_000,
    b"DKIM-Signature: " + b"".join(b"t%d=1;" % number for number in range(12_000)),
    b"DKIM-Signature: v=1; a=ed25519-sha256; d=" + b"a." * 60_000,
    b"X:" + b" \r\n" * 40_000 + b"\r\nDKIM-Signature: a=b",
    (b"DKIM-Signature: v=1; a=ed25519-sha256; d=sender.example; s=ed; bh=AAAA; b=AAAA; h=from:"
     + b"x:" * 4000 + b"\r\n") * 14,
]  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE_HEADS, ids=range(len(HOSTILE_HEADS)))
def test_no_header_costs_more_than_its_length(hostile: bytes) -> None:
    """Blanks, names and tags in any number are read in time linear in the header."""

    def cost() -> float:
        began = time.process_time()
        check(hostile + b"\r\n" + sign.MESSAGE, key("ed25519"))
        return time.process_time() - began

    assert min(cost() for _ in range(2)) < 0.25


@pytest.mark.parametrize(
    "unit", [b" ", b"\t", b"\r\n", b" \r\n", b"a b\tc  d\r\n", b"\r", b"a" * 20 + b" " * 20]
)
def test_no_body_costs_more_than_its_length(unit: bytes) -> None:
    """Ten times the body takes about ten times as long, whatever it is made of."""

    def cost(size: int) -> float:
        body = unit * (size // len(unit))
        best = 9.0
        for _ in range(2):
            began = time.process_time()
            hashed = Body(body)
            hashed.hashed("relaxed")
            hashed.hashed("simple")
            best = min(best, time.process_time() - began)
        return best

    assert cost(5_000_000) < 10 * 5 * max(cost(500_000), 0.001)


TAGS = st.lists(
    st.sampled_from(
        [b"v=1", b"a=ed25519-sha256", b"a=rsa-sha256", b"c=relaxed", b"c=simple/relaxed", b"d=sender.example",
         b"d=b\xc3\xbc.example", b"s=ed", b"s=\xff", b"h=from", b"h=from:dkim-signature:", b"i=@x.example",
         b"i=\xc3\xbc@\xe2\x84\xaa.example", b"l=0", b"l=" + b"9" * 76, b"t=1", b"x=2", b"x=9999999999",
         b"bh=AAAA", b"b=AAAA", b"b=A", b"bh=====", b"q=dns/txt", b"z=\x00", b"", b"=", b"b"]
    ),
    max_size=14,
)  # fmt: skip
RECORDS = st.lists(
    st.sampled_from(
        ["v=DKIM1", "k=ed25519", "k=rsa", "p=", "p=AAAA", "p=" + "A" * 43 + "=", "p=\xff", "h=sha1", "h=",
         "s=", "t=s", "t=:", "n=\xe4", "=", "", "p=MAA=",
         f"p={key('rsa2048').rpartition('p=')[2]}"]
    ),
    max_size=6,
).map(";".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(TAGS.map(b"; ".join) | st.binary(max_size=20), min_size=1, max_size=3),
    st.lists(RECORDS, max_size=3),
    st.sampled_from(["ok", "nodata", "nxdomain", "timeout", "servfail"]),
    st.binary(max_size=30),
)
def test_any_signature_and_any_key_give_a_result(
    values: list[bytes], records: list[str], kind: str, body: bytes
) -> None:
    """Whatever a signature holds, its key record says and DNS does: one of the results, and no pass."""
    lines = b"".join(b"DKIM-Signature: " + re.sub(rb"[\r\n]", b" ", value) + b"\r\n" for value in values)
    head = lines + sign.MESSAGE[: head_length(sign.MESSAGE)]
    examined = examine(head, NOW)
    keys = {one.key_name: Known(kind, tuple(records)) for one in examined.signatures}
    results = verify(head, Body(body), examined, keys)
    assert len(results) == len(values)
    assert {checked.result for checked in results} <= set(Result) - {Result.PASS}


@pytest.mark.parametrize("tag", [b"d", b"s", b"a"])
def test_what_is_no_name_is_told_up_to_a_bound(tag: bytes) -> None:
    """A result is remembered with its verdict: thousands as long as a header would fill the memory."""
    message = sign.made(["sign ed25519 d=sender.example s=ed"])
    for value in (b"x" * 100_000, "ü".encode() * 50_000):
        [checked] = check(re.sub(rb"\b%s=[^;]*" % tag, tag + b"=" + value, message, count=1), "")
        assert checked.result is Result.NEUTRAL
        assert max(map(len, (checked.domain, checked.selector, checked.algorithm))) == 253


def test_the_right_key_of_several_is_found_among_few() -> None:
    """RFC 6376 section 3.6.2.2 leaves open which of several keys counts; few are looked at."""
    message = sign.made(["sign ed25519 d=sender.example s=ed"])
    head = message[: head_length(message)]
    examined = examine(head, NOW)
    for before, result in ((7, Result.PASS), (8, Result.PERMERROR)):
        answer = Known("ok", (*("k=rsa; p=AAAA",) * before, key("ed25519")))
        body = Body(message[len(head) + 2 :])
        checked = verify(head, body, examined, {examined.signatures[0].key_name: answer})
        assert checked[0].result is result
