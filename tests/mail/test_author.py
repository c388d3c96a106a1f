"""Whom a From field names: RFC 5322 in full, and what attackers write so that two readers see two authors."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.author import DOMAINS, OCTETS, Author, author


def named(value: str | bytes) -> Author:
    raw = value if isinstance(value, bytes) else value.encode()
    return author(b"To: ann@office.example\r\nFrom: " + raw + b"\r\nSubject: x\r\n")


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        ("bob@sender.example", ["sender.example"]),
        ("<bob@sender.example>", ["sender.example"]),
        ("Bob <bob@sender.example>", ["sender.example"]),
        ("Bob B. Builder <bob@SENDER.Example>", ["sender.example"]),  # section 4.1: dots in obs-phrase
        ('"bob@bank.example" <eve@evil.example>', ["evil.example"]),
        ('"<bob@bank.example>" <eve@evil.example>', ["evil.example"]),
        (r'"\"bob@bank.example" <eve@evil.example>', ["evil.example"]),
        ('"bob@bank.example>, "<eve@evil.example>', ["evil.example"]),
        ("(bob@bank.example) eve@evil.example", ["evil.example"]),
        ("eve@evil.example (bob@bank.example)", ["evil.example"]),
        ("(<bob@bank.example>(, x@y.example)) <eve@evil.example>", ["evil.example"]),
        (r"(\) <bob@bank.example> ) eve@evil.example", ["evil.example"]),
        ("eve(a)@(b)evil(c).(d)example(e)", ["evil.example"]),
        ("eve @ evil . example", ["evil.example"]),
        ("e . v . e@evil.example", ["evil.example"]),
        ("Eve <\r\n eve@\r\n\tevil.example>", ["evil.example"]),
        ("\r\n eve@evil.example", ["evil.example"]),
        ('"eve@bank.example"@evil.example', ["evil.example"]),
        ('"e v e"@evil.example', ["evil.example"]),
        ('"eve"."x"@evil.example', ["evil.example"]),
        ("=?utf-8?q?bob=40bank.example?= <eve@evil.example>", ["evil.example"]),
        ("=?utf-8?b?PGJvYkBiYW5rLmV4YW1wbGU+?= <eve@evil.example>", ["evil.example"]),
        ("<@bank.example:eve@evil.example>", ["evil.example"]),
        ("<@bank.example,@bank2.example:eve@evil.example>", ["evil.example"]),
        ("<,,@bank.example,,:eve@evil.example>", ["evil.example"]),
        ("a@one.example, b@two.example", ["one.example", "two.example"]),
        ("A <a@one.example>,B <b@two.example>, c@one.example", ["one.example", "two.example"]),
        (",, a@one.example ,, b@two.example,", ["one.example", "two.example"]),
        ("Team: a@one.example, B <b@two.example>;", ["one.example", "two.example"]),
        ("Team:;", []),
        ("Team: ,,;", []),
        ('"T: eam":(x)a@one.example;, b@two.example', ["one.example", "two.example"]),
        ("eve@evil.example.", ["evil.example"]),
        ("eve@[192.0.2.1]", ["[192.0.2.1]"]),
        ("eve@[IPv6:2001:db8::1]", ["[IPv6:2001:db8::1]"]),
        ("eve@bücher.example", ["xn--bcher-kva.example"]),
        ("eve@BÜCHER.example", ["xn--bcher-kva.example"]),
        ("eve@xn--bcher-kva.example", ["xn--bcher-kva.example"]),
        ("Bücher <büro@bücher。example>", ["xn--bcher-kva.example"]),
        ("eve@ｅvil.example", ["evil.example"]),
        ("eve@localhost", ["localhost"]),
        ("eve@_x.evil.example", ["_x.evil.example"]),
        ("eve@evil.example\r\n\t", ["evil.example"]),
    ],
)
def test_whom_a_field_names(value: str, domains: list[str]) -> None:
    """RFC 5322 section 3.4 and 4.4, RFC 6854, RFC 6532: these mailboxes, and nobody else."""
    assert named(value) == Author(tuple(domains))


def test_octets_that_are_no_utf8_are_a_name_like_any_other() -> None:
    """A display name in Latin-1 is wrong and names nobody."""
    assert named(b"B\xfcro <eve@evil.example>") == Author(("evil.example",))


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "<>",
        "Bob",
        "Bob <>",
        "bob@",
        "@sender.example",
        "bob@bank.example <eve@evil.example>",
        "bob@bank.example eve@evil.example",
        "<bob@bank.example> <eve@evil.example>",
        "<bob@bank.example>, <eve@evil.example> x",
        "<bob@bank.example><eve@evil.example>",
        "bob@bank.example@evil.example",
        "<bob@bank.example",
        "bob@bank.example>",
        "<<bob@bank.example>>",
        '"bob <eve@evil.example>',
        "(bob <eve@evil.example>",
        "bob) <eve@evil.example>",
        "Team: bob@bank.example",
        "Team: eve@evil.example; bob@bank.example",
        "bob@bank.example;",
        "A: B: bob@bank.example;;",
        "<@bank.example eve@evil.example>",
        "=?utf-8?q?bob=40bank.example?=",
        "bob@bank..example",
        "bob@.bank.example",
        "bob@bank.example..",
        "b..ob@bank.example",
        "bob@[192.0.2.1",
        "bob@[" + "1" * 254 + "]",
        "bob@ba!nk.example",
        "bob@" + "a" * 64 + ".example",
        "bob@" + "a.bank." * 40 + "example",
        "bob@xn--\u2028.example",
        "bob@\ud7a3" * 3,
        "Doe, Bob <bob@bank.example>",
        "bob\\@bank.example",
        "bob@bank.example\x01",
    ],
)
def test_what_is_no_from_field_names_nobody(value: str) -> None:
    """RFC 9989 section 4.4: of a malformed field nothing is guessed."""
    assert named(value) == Author(defect="malformed From field")


def test_octets_of_a_domain_that_are_no_utf8() -> None:
    """RFC 6532 section 3.1: a domain is ASCII or UTF-8."""
    assert named(b"eve@b\xfccher.example").defect == "malformed From field"
    assert named(b"eve@" + "ü".encode() * 600 + b".example").defect == "malformed From field"


@pytest.mark.parametrize(
    ("head", "defect"),
    [
        (b"", "no From field"),
        (b"To: x@y.example\r\n", "no From field"),
        (b"Sender: x@y.example\r\nX-From: a@b.example\r\nFromage: a@b.example\r\n", "no From field"),
        (b"Subject: x\r\n From: a@bank.example\r\n", "no From field"),
        (b"From: a@one.example\r\nFrom: a@one.example\r\n", "several From fields"),
        (b"From: a@one.example\r\nX: y\r\nfRoM\t : b@two.example\r\n", "several From fields"),
        (b"From: a@one.example\r\nFrom\r\n : b@two.example\r\n", "several From fields"),
        (b"From\r\n : b@two.example\r\n", "malformed From field"),
        (b" From: a@bank.example\r\nFrom: b@evil.example\r\n", "malformed header"),
        (b"\tX: y\r\nFrom: b@evil.example\r\n", "malformed header"),
        (b"From\0: a@bank.example\r\nFrom: b@evil.example\r\n", "NUL in the header"),
        (b"From: b@evil.example\0.bank.example\r\n", "NUL in the header"),
        (b"From: " + b"x " * (OCTETS // 2) + b"<a@one.example>\r\n", "From field too long"),
        (
            b"From: " + b",".join(b"a@d%d.example" % n for n in range(DOMAINS + 1)) + b"\r\n",
            "too many author domains",
        ),
    ],
)
def test_a_header_without_one_readable_from_field(head: bytes, defect: str) -> None:
    """RFC 9989 section 4.4 and 11.5: no author is taken from any of these."""
    assert author(head) == Author(defect=defect)


@pytest.mark.parametrize(
    "head",
    [
        b"From: eve@evil.example\r\n",
        b"FROM : eve@evil.example\r\n",
        b"From\t:\teve@evil.example\r\n",
        b"From:eve@evil.example",
        b"From eve@bank.example Fri Jan 15 2027\r\nFrom: eve@evil.example\r\n",
        b"X: a\r\n From: eve@bank.example\r\nFrom: eve@evil.example\r\n",
        b"Resent-From: eve@bank.example\r\nFrom: eve@evil.example\r\nReply-To: x@bank.example\r\n",
    ],
)
def test_where_the_field_is(head: bytes) -> None:
    """RFC 5322 section 3.6.8 and 4.5: any case, blanks before the colon; no continuation, no mbox line."""
    assert author(head) == Author(("evil.example",))


def test_as_many_domains_as_are_looked_at() -> None:
    """The bound of RFC 9989 section 11.5 counts domains, not mailboxes."""
    few = [f"d{n}.example" for n in range(DOMAINS)]
    assert named(", ".join(f"u{n}@{few[n % DOMAINS]}" for n in range(100))) == Author(tuple(few))


BLANKS = st.text(st.sampled_from(" \t"), min_size=0, max_size=2)
COMMENTS = st.sampled_from(["", "(x@bank.example)", "(a (b <c@bank.example>) d)", r"(\(,;:<>@)", "\r\n "])
CFWS = st.builds("".join, st.lists(BLANKS | COMMENTS, max_size=3))
ATOM = st.text(st.sampled_from("abAB01!#$%&'*+-/=?^_`{|}~é"), min_size=1, max_size=5)
QUOTED = st.text(st.sampled_from('ab <>@,;:.()[]\\"'), max_size=8).map(
    lambda text: '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
)
LABEL = st.text(st.sampled_from("abz09"), min_size=1, max_size=5)


@st.composite
def mailboxes(draw: st.DrawFn) -> tuple[str, str]:
    """(a mailbox as RFC 5322 allows it, its domain)."""
    labels = draw(st.lists(LABEL, min_size=1, max_size=3))
    words = draw(st.lists(ATOM | QUOTED, min_size=1, max_size=2))
    gap = draw(CFWS)
    spec = f"{gap}.".join(words) + draw(CFWS) + "@" + draw(CFWS) + f".{gap}".join(labels)
    if draw(st.booleans()):
        name = " ".join(draw(st.lists(ATOM | QUOTED, max_size=3)))
        route = draw(st.sampled_from(["", "@r.example:", "@r.example,@s.example:"]))
        spec = f"{name}{draw(CFWS)}<{draw(CFWS)}{route}{spec}{draw(CFWS)}>"
    return draw(CFWS) + spec + draw(CFWS), ".".join(labels)


@given(st.lists(mailboxes(), min_size=1, max_size=DOMAINS), st.booleans())
def test_what_is_written_is_read(written: list[tuple[str, str]], group: bool) -> None:
    """Any list of mailboxes and any group, with comments, quotes and folds wherever they may be."""
    value = ",".join(text for text, _ in written)
    wanted = tuple(dict.fromkeys(domain for _, domain in written))
    assert named(f"Group: {value};" if group else value) == Author(wanted)


PARTS = [*b'<>@,;:."\\()[]a', "From", "\r\n", " ", "bank.example", "\0", "\xff", "ü", "=?utf-8?q?=40?="]
TRICKS = st.lists(
    st.sampled_from([bytes([part]) if isinstance(part, int) else part.encode() for part in PARTS]),
    max_size=30,
).map(b"".join)


@given(st.binary(max_size=80) | TRICKS)
def test_nothing_raises(octets: bytes) -> None:
    """Whatever stands there, there are authors or a defect, and every domain is one that DNS can hold."""
    for head in (octets, b"From: " + octets + b"\r\n"):
        found = author(head)
        assert not (found.domains and found.defect)
        for domain in found.domains:
            assert domain.isascii()
            assert domain.startswith("[") or re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", domain)


@pytest.mark.parametrize(
    "part", [b"(", b"\\", b'"', b"a.", b"a ", b"<", b"@a,", b"a@b,", b"a:", b"(\\", b"[", b"\r\n "]
)
def test_a_header_full_of_one_thing(part: bytes) -> None:
    """Expressions that go back and forth would not end within the test's time limit."""
    many = part * (OCTETS // len(part) - 1)
    assert author(b"From: " + many + b"\r\n").defect or part == b"a@b,"
    assert author((b"From: " + part + b"\r\n") * 20_000).defect == "several From fields"
