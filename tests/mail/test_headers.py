"""Header fields: ours are well-formed whatever goes in, those of strangers are found whatever they are."""

import email
import email.policy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.headers import (
    Finding,
    authentication_results,
    fields,
    head_length,
    received,
    received_spf,
    returned,
)

OURS = "mx1.backup.example"
AT = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 UTC


def trace(**changes: object) -> bytes:
    facts: dict[str, object] = {
        "helo": "client.example", "client": "192.0.2.1", "by": OURS, "protocol": "ESMTPS", "id": "abc234",
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384", "recipient": "ann@office.example", "time": AT,
    }  # fmt: skip
    return received(**(facts | changes))  # type: ignore[arg-type]


def test_received_has_the_clauses_of_rfc_5321() -> None:
    """RFC 5321 section 4.4: from, by, with, id, for, and the date in UTC; the TLS facts are a comment."""
    assert trace() == (
        b"Received: from client.example ([192.0.2.1]) by mx1.backup.example with ESMTPS\r\n"
        b"\t(TLSv1.3 TLS_AES_256_GCM_SHA384) id abc234 for <ann@office.example>;\r\n"
        b"\tFri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


def test_received_names_an_ipv6_client_as_a_literal() -> None:
    """RFC 5321 section 4.1.3: an IPv6 address literal has its tag."""
    assert b"from client.example ([IPv6:2001:db8::1])" in trace(client="2001:db8::1")


def test_received_without_tls_and_with_several_recipients() -> None:
    """RFC 5321 section 7.2: with several recipients there is no `for`; without TLS there is no comment."""
    assert trace(tls="", recipient="", protocol="SMTP") == (
        b"Received: from client.example ([192.0.2.1]) by mx1.backup.example with SMTP\r\n"
        b"\tid abc234; Fri, 15 Jan 2027 08:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    "helo", ["not a domain", "a)b(c\\", "x;y", 'quo"ted', "ünï.example", "a\r\nEvil: yes"]
)
def test_received_keeps_a_strange_helo_in_a_comment(helo: str) -> None:
    """What is neither domain nor address literal stands in a comment, escaped, on its own line's terms."""
    field = trace(helo=helo)
    assert field.startswith(b"Received: from [192.0.2.1] ([192.0.2.1]) (helo ")
    assert len(list(fields(field))) == 1


def test_received_of_an_unknown_client() -> None:
    """A mail from a trusted relay may have no client address: the field says so."""
    assert trace(client="").startswith(b"Received: from client.example (unknown) by")
    assert trace(client="", helo="no domain").startswith(b"Received: from unknown (unknown) (helo no domain)")


def test_received_refuses_an_unknown_protocol() -> None:
    """RFC 3848: the protocol words are a closed set; another is our own bug."""
    with pytest.raises(ValueError, match="protocol"):
        trace(protocol="LMTP\r\nX: y")


def well_formed(raw: bytes, name: str) -> None:
    """One field, CR LF line ends only, folded lines begin with a blank, nothing too long, no controls."""
    assert raw.endswith(b"\r\n")
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", raw)
    lines = raw[:-2].split(b"\r\n")
    assert lines[0].lower().startswith(name.encode() + b":")
    assert all(line[:1] in b" \t" and line.strip() for line in lines[1:])
    assert all(len(line) <= 998 for line in lines)
    assert [field.name.lower().decode() for field in fields(raw)] == [name]
    raw.decode("utf-8")
    parsed = email.message_from_bytes(raw + b"\r\nbody", policy=email.policy.compat32)
    assert parsed.keys() == [lines[0].split(b":")[0].decode()]


@given(helo=st.text(), client=st.text(max_size=50), tls=st.text(), recipient=st.text(), at=st.floats(0, 4e9))
def test_received_is_well_formed_whatever_goes_in(
    helo: str, client: str, tls: str, recipient: str, at: float
) -> None:
    """No stranger's octets can break the field out of its line, its comment or the line limit."""
    well_formed(trace(helo=helo, client=client, tls=tls, recipient=recipient, time=at), "received")


FINDINGS = st.lists(
    st.builds(
        Finding,
        method=st.sampled_from(["spf", "dkim"]),
        result=st.sampled_from(["pass", "fail"]),
        properties=st.lists(st.tuples(st.just("smtp.mailfrom"), st.text()), max_size=3).map(tuple),
        reason=st.text(),
    ),
    max_size=5,
)


@given(FINDINGS)
def test_results_are_well_formed_whatever_goes_in(findings: list[Finding]) -> None:
    """RFC 8601: a stranger's domain, selector or text cannot add a result or a field."""
    raw = authentication_results(OURS, findings)
    well_formed(raw, "authentication-results")
    outside_quotes = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", raw)
    assert outside_quotes.count(b";") == max(1, len(findings))


KEYS = ("receiver", "identity", "client-ip", "helo", "envelope-from", "mechanism", "problem")


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.text(max_size=400)), min_size=1, max_size=7))
def test_received_spf_is_well_formed_whatever_goes_in(pairs: list[tuple[str, str]]) -> None:
    """RFC 7208 section 9.1: a stranger's name, mailbox or record cannot add a pair, a comment or a field."""
    raw = received_spf("fail", pairs)
    well_formed(raw, "received-spf")
    plain = re.sub(rb'"(?:[^"\\]|\\.)*"', b"", raw)
    assert plain.count(b";") == len(pairs)
    assert not re.search(rb'[()"\\]', plain)


def test_received_spf_in_the_form_of_rfc_7208() -> None:
    """RFC 7208 section 9.1: the result, then pairs; what is no dot-atom is quoted."""
    pairs = [
        ("client-ip", "2001:db8::1"),
        ("helo", 'x"; y'),
        ("envelope-from", "a@b.example"),
        ("helo", "a..b"),
    ]
    assert received_spf("pass", pairs) == (
        b'Received-SPF: pass client-ip="2001:db8::1"; helo="x\\"; y";\r\n'
        b'\tenvelope-from="a@b.example"; helo="a..b";\r\n'
    )


def test_results_in_the_form_of_rfc_8601() -> None:
    """RFC 8601 section 2.2: our id, then one resinfo a line, values quoted at need; else `none`."""
    findings = [
        Finding("spf", "pass", (("smtp.mailfrom", "sender.example"),)),
        Finding(
            "dkim", "fail",
            (("header.d", "sender.example"), ("header.s", "s1"), ("header.a", "rsa-sha256"),
             ("header.b", "a+/=b")),
            "body hash did not verify",
        ),
    ]  # fmt: skip
    assert authentication_results(OURS, findings) == (
        b"Authentication-Results: mx1.backup.example;\r\n"
        b"\tspf=pass smtp.mailfrom=sender.example;\r\n"
        b'\tdkim=fail reason="body hash did not verify" header.d=sender.example\r\n'
        b'\theader.s=s1 header.a=rsa-sha256 header.b="a+/=b"\r\n'
    )
    assert authentication_results(OURS, []) == b"Authentication-Results: mx1.backup.example;\r\n\tnone\r\n"


@pytest.mark.parametrize("sign", ["'", "`", "(", ";"])
def test_a_sign_that_could_end_a_value_is_quoted(sign: str) -> None:
    """RFC 8601 section 2.2 allows some of them in a bare value; who stops there would see the victim."""
    name = f"victim.example{sign}.evil.test"
    field = authentication_results(OURS, [Finding("dkim", "neutral", (("header.d", name),))])
    assert field.endswith(f'header.d="{name}"\r\n'.encode())
    assert received_spf("none", [("helo", name)]).endswith(f'helo="{name}";\r\n'.encode())


def test_fields_have_their_octet_ranges() -> None:
    """Each field knows its octets: folded ones whole, lines that are no field by the empty name."""
    head = b"A: 1\r\nB:\r\n 2\r\n\t3\r\nno field\r\nC : 4\r\n"
    assert [(f.name, head[f.start : f.end], head[f.value : f.end]) for f in fields(head)] == [
        (b"A", b"A: 1\r\n", b" 1\r\n"),
        (b"B", b"B:\r\n 2\r\n\t3\r\n", b"\r\n 2\r\n\t3\r\n"),
        (b"", b"no field\r\n", b"no field\r\n"),
        (b"C", b"C : 4\r\n", b" 4\r\n"),
    ]


@given(
    st.lists(st.sampled_from([b"A: b\r\n", b" \r\n", b"\r\n", b"x", b":", b"\n", b"\t", b"\x00\xff"])).map(
        b"".join
    )
)
def test_fields_cover_the_head(head: bytes) -> None:
    """Fields are in order, touch each other and leave no octet out."""
    assert b"".join(head[f.start : f.end] for f in fields(head)) == head


HOSTILE = st.lists(
    st.sampled_from(
        [b"Authentication-Results:", b"received: ", b"mx1.example", b" by mx1.example", b" for <a@b.example>",
         b"(", b")", b'"', b"\\", b";", b" ", b"\t", b"\r\n", b"\r\n ", b"1", b"=", b"\xc3\xbc", b"\xff",
         b"\n"]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip


@given(HOSTILE)
def test_any_header_is_read(head: bytes) -> None:
    """No header raises."""
    assert 0 <= head_length(head) <= len(head)
    assert returned(head, ["mx1.example"], ["a@b.example"]) <= head.lower().count(b"received")


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (b"A: b\r\n\r\nbody", 6),
        (b"\r\nbody", 0),
        (b"A: b\r\n", 6),
        (b"", 0),
        (b"A: b\r\nC: d\r\n\r\n\r\n", 12),
    ],
)
def test_the_head_ends_at_the_empty_line(content: bytes, length: int) -> None:
    """RFC 5322 section 2.1: the first empty line ends the header."""
    assert head_length(content) == length
