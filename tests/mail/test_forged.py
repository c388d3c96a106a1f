"""Fields that claim to be ours are found in any spelling, and those of others are left alone."""

import time
from itertools import pairwise

import pytest
from hypothesis import given

from libs.mail.forged import claims
from libs.mail.headers import Finding, authentication_results, fields
from tests.mail.test_headers import FINDINGS, HOSTILE, OURS

FORGED = [
    b"Authentication-Results: mx1.backup.example; spf=pass\r\n",
    b"authentication-RESULTS:mx1.backup.example;dkim=pass\r\n",
    b"Authentication-Results : mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: MX1.Backup.Example; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example 1; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example (v) 1 (c); spf=pass\r\n",
    b"Authentication-Results: (nice (nested \\) one)) mx1.backup.example; spf=pass\r\n",
    b'Authentication-Results: "mx1.backup.example"; spf=pass\r\n',
    b'Authentication-Results: "mx1\\.backup.\\example"; spf=pass\r\n',
    b"Authentication-Results:\r\n\tmx1.backup.example;\r\n spf=pass\r\n",
    b"Authentication-Results:\r\n (a\r\n b)\r\n mx1.backup.example\r\n ; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example.; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example\r\n",
    b"Authentication-Results: mx1. backup. example; spf=pass\r\n",
    b"Authentication-Results: mx1.(c)backup.example 1; spf=pass\r\n",
    b'Authentication-Results: "mx1.backup.example\r\n',
    b'Authentication-Results: "mx1.backup.example; spf=pass\r\n',
    b"Authentication-Results: 'mx1.backup.example'; spf=pass\r\n",
    b"Authentication-Results: <mx1.backup.example>; spf=pass\r\n",
    b"Authentication-Results: @ mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: \\mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example, spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example/1; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example\0.evil.example; spf=pass\r\n",
    b"Authentication-Results: \0mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: =?utf-8?q?mx1=2Ebackup=2Eexample?=; spf=pass\r\n",
    b"Authentication-Results\r\n : mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results \r\n\t\r\n :mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: " + b"(" * 3000 + b")" * 3000 + b"mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: ; mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results:;;\r\n\t; mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: (mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: (\\) mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: (\\) mx1.backup.example; spf=pass)\r\n",
    b"Authentication-Results: (() mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: (a (b) mx1.backup.example; spf=pass)\r\n",
    b"Authentication-Results: )mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: \\(a mx1.backup.example; spf=pass\r\n",
    b'Authentication-Results: "(a" \\(b) mx1.backup.example; spf=pass\r\n',
    b"Authentication-Results: ';mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: mx1.)backup.example; spf=pass\r\n",
    b"Authentication-Results: mx1\\.back\\up.example; spf=pass\r\n",
    b'Authentication-Results: mx"1.back"up.example; spf=pass\r\n',
    b"Authentication-Results: (" + b"a" * 3000 + b") mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example; spf=pass",
]
OTHERS = [
    b"Authentication-Results: mx.other.example; spf=pass smtp.mailfrom=mx1.backup.example\r\n",
    b"Authentication-Results: (mx1.backup.example) mx.other.example; spf=pass\r\n",
    b"Authentication-Results: xmx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example.evil.example; spf=pass\r\n",
    b"Authentication-Results: mx1.backup.example-evil.example; spf=pass\r\n",
    b"Authentication-Results: evil.example <mx1.backup.example>; spf=pass\r\n",
    b"Authentication-Results-X\r\n : mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: (mx1.backup.example) (b) mx.other.example 1 (c); spf=pass\r\n",
    b"Authentication-Results: mx.other.example (mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: mx.other.example; (mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: ; mx.other.example; mx1.backup.example; spf=pass\r\n",
    b"Authentication-Results: (a (mx1.backup.example) b) mx.other.example; spf=pass\r\n",
    b"Authentication-Results:\r\n",
    b"ARC-Authentication-Results: i=1; mx1.backup.example; spf=pass\r\n",
    b"X-Authentication-Results: mx1.backup.example; spf=pass\r\n",
    b"Subject: x\r\n Authentication-Results: mx1.backup.example; spf=pass\r\n",
]


@pytest.mark.parametrize("field", FORGED)
def test_forged_results_are_found(field: bytes) -> None:
    """RFC 8601 section 5: an arriving field that claims our id is found, however it spells it."""
    before, after = b"From: a@b.example\r\n", b"To: c@d.example\r\n"
    head = before + field + (after if field.endswith(b"\r\n") else b"")
    assert claims(head, OURS) == ((len(before), len(before) + len(field)),)


@given(FINDINGS)
def test_what_we_write_is_ours(findings: list[Finding]) -> None:
    """Also where it was here before."""
    raw = authentication_results(OURS, findings)
    assert claims(raw, OURS) == ((0, len(raw)),)


@given(HOSTILE)
def test_any_header_is_searched(head: bytes) -> None:
    """No header raises; what is cut out of it is whole fields, in order and apart."""
    found = claims(head, "mx1.example", "bücher.example")
    bounds = {edge for field in fields(head) for edge in (field.start, field.end)}
    assert all(edge in bounds for cut in found for edge in cut)
    assert all(start < end for start, end in found)
    assert all(before[1] < after[0] for before, after in pairwise(found))


@pytest.mark.parametrize("field", OTHERS)
def test_results_of_others_stay(field: bytes) -> None:
    """RFC 8601 section 5: fields that do not claim our id are left alone."""
    assert claims(b"From: a@b.example\r\n" + field + b"To: c@d.example\r\n", OURS) == ()


def test_every_host_name_of_ours_is_an_id() -> None:
    """A field that claims any of our host names is forged."""
    head = b"Authentication-Results: mx2.backup.example; spf=pass\r\n"
    assert claims(head, OURS, "mx2.backup.example") == ((0, len(head)),)


@pytest.mark.parametrize("blank", [b" ", b"\t", b" \r\n\t"])
def test_what_would_go_on_with_our_field_is_forged(blank: bytes) -> None:
    """RFC 5322 section 2.2.3: lines that begin with a blank, above the first field, would be more of the
    field that we put on top of them: a result in our name."""
    forged = blank + b"; dmarc=pass header.from=bank.example\r\n more\r\n"
    assert claims(forged + b"From: a@bank.example\r\n", OURS) == ((0, len(forged)),)
    results = b"Authentication-Results: mx1.backup.example; dmarc=pass\r\n"
    assert claims(forged + results, OURS) == ((0, len(forged + results)),)
    assert claims(forged, OURS) == ((0, len(forged)),)


def test_a_u_label_claims_its_a_label() -> None:
    """An id written in UTF-8 is the same as its A-label (RFC 8601 section 2.2 with RFC 6532)."""
    head = "Authentication-Results: mx.bücher.example; spf=pass\r\n".encode()
    assert claims(head, "mx.xn--bcher-kva.example") == ((0, len(head)),)


def test_neighbouring_forgeries_are_one_range_and_many_are_bounded() -> None:
    """Ranges are merged, and a header full of forgeries needs at most 201 of them."""
    forged = b"Authentication-Results: mx1.backup.example; spf=pass\r\n"
    assert claims(forged * 3, OURS) == ((0, 3 * len(forged)),)
    head = (forged + b"X: y\r\n") * 2000
    found = claims(head, OURS)
    assert len(found) == 201
    assert found[-1][1] == len(head) - len(b"X: y\r\n")
    kept = b"".join(head[end:start] for (_, end), (start, _) in pairwise(found))
    assert forged not in kept


def test_ids_that_are_not_ascii_are_read_up_to_a_bound() -> None:
    """To make A-labels of a header full of them would take most of a second: the rest counts as forged."""
    foreign = "Authentication-Results: bücher.example; none\r\n".encode()
    assert claims(foreign * 5, OURS) == ()
    long = b"Authentication-Results: " + "é".encode() * 900 + b"; none\r\n"
    assert claims(long * 60, OURS) == ((6 * len(long), 60 * len(long)),)


@pytest.mark.parametrize(
    "unit",
    [b"Authentication-Results: (", b"Authentication-Results: (\\", b"Authentication-Results: \"", b"A: \r\n",
     b" \t", b"(", b"Authentication-Results: ((()", b"\r\n ", b"Authentication-Results:\r\n (a)\r\n", b"a b ",
     b"Authentication-Results: mx1.backup.example;\r\nX: y\r\n", b"\r\n\tx;"],
)  # fmt: skip
def test_reading_a_header_is_linear(unit: bytes) -> None:
    """Twenty times the header takes about twenty times as long, whatever it is made of."""

    def cost(size: int) -> float:
        best = 9.0
        head = b"Authentication-Results: " + unit * (size // len(unit))
        for _ in range(3):
            began = time.process_time()
            claims(head, OURS)
            for _ in fields(head):
                pass
            best = min(best, time.process_time() - began)
        return best

    assert cost(1_000_000) < 20 * 5 * max(cost(50_000), 0.001)
