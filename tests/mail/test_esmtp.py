"""Parameters of MAIL and RCPT: RFC 1870, 3461, 6152, 6531."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.mail.esmtp import (
    BadParameter,
    MailParameters,
    RcptParameters,
    mail_parameters,
    rcpt_parameters,
    unxtext,
    xtext,
)


def test_what_mail_may_say() -> None:
    """Keywords and the values of BODY and RET ignore case; ENVID keeps its case and is decoded."""
    assert mail_parameters(b"") == MailParameters()
    assert mail_parameters(b"size=10240 body=8bitmime  SMTPUTF8 ret=hdrs ENVID=Ab+2BC+20d") == MailParameters(
        10240, eightbit=True, smtputf8=True, ret="HDRS", envid="Ab+C d"
    )
    assert mail_parameters(b"BODY=7BIT") == MailParameters()
    assert mail_parameters(b"SIZE=0") == MailParameters()


MALFORMED = [
    *"""SIZE SIZE= SIZE=x SIZE=-1 SIZE=\u0661 SIZE=123456789012345678901 BODY BODY=BINARYMIME SMTPUTF8=1 RET
    RET=BOTH ENVID ENVID= ENVID=a+0Db ENVID=a+0Ab ENVID=a+00 ENVID=a+7F ENVID=a+2b ENVID=a+2 ENVID=\u00fc
    =1 SIZE==1 -A=1""".split(),
    "SIZE=1\tBODY=7BIT",
    "RET=FULL\rX",
    f"ENVID={'a' * 101}",
    "SIZE=1 SIZE=1",
    "SIZE=1 size=2",
]


@pytest.mark.parametrize("raw", MALFORMED)
def test_malformed_mail_parameters(raw: str) -> None:
    """A value of the wrong form, an ENVID with a control character, or one twice: malformed, not unknown."""
    with pytest.raises(BadParameter) as caught:
        mail_parameters(raw.encode())
    assert not caught.value.unknown


@pytest.mark.parametrize("raw", ["AUTH=<>", "X-A", "MT-PRIORITY=3", "HOLDFOR=1", "NOTIFY=NEVER"])
def test_unknown_mail_parameters(raw: str) -> None:
    """RFC 5321 4.1.1.11: a parameter we did not offer is told apart (555)."""
    with pytest.raises(BadParameter) as caught:
        mail_parameters(raw.encode())
    assert caught.value.unknown


def test_what_rcpt_may_say() -> None:
    """RFC 3461 4.1 and 4.2: NOTIFY is a set, ORCPT a type and an xtext that keeps its case."""
    assert rcpt_parameters(b"") == RcptParameters()
    assert rcpt_parameters(b"NOTIFY=success,DELAY ORCPT=rfc822;Ann+2Bx@Office.example") == RcptParameters(
        ("SUCCESS", "DELAY"), "rfc822;Ann+x@Office.example"
    )
    assert rcpt_parameters(b"notify=never").notify == ("NEVER",)
    utf8 = "ORCPT=utf-8;jürgen@office.example".encode()
    assert rcpt_parameters(utf8, smtputf8=True).orcpt == "utf-8;jürgen@office.example"


MALFORMED_RCPT = [
    *"""NOTIFY NOTIFY= NOTIFY=NEVER,DELAY NOTIFY=DELAY,DELAY NOTIFY=SUCCESS, NOTIFY=OFTEN ORCPT ORCPT=
    ORCPT=rfc822 ORCPT=rfc822; ORCPT=;a ORCPT=a_b;c ORCPT=rfc822;a+0D+0AX: ORCPT=rfc822;a=b
    ORCPT=rfc822;j\u00fcrgen@office.example""".split(),
    "ORCPT=utf-8;a\u0085b",
    f"ORCPT=rfc822;{'a' * 494}",
]


@pytest.mark.parametrize("raw", MALFORMED_RCPT)
@pytest.mark.parametrize("smtputf8", [False, True])
def test_malformed_rcpt_parameters(raw: str, smtputf8: bool) -> None:
    """CR, LF and control characters never pass; UTF-8 only in ORCPT=utf-8 of an SMTPUTF8 mail."""
    with pytest.raises(BadParameter) as caught:
        rcpt_parameters(raw.encode(), smtputf8=smtputf8)
    assert not caught.value.unknown


def test_utf8_in_orcpt_needs_smtputf8() -> None:
    """RFC 6533 3: raw UTF-8 in ORCPT is for SMTPUTF8 mail only."""
    with pytest.raises(BadParameter):
        rcpt_parameters("ORCPT=utf-8;jürgen@office.example".encode())
    with pytest.raises(BadParameter) as caught:
        rcpt_parameters(b"X=1")
    assert caught.value.unknown


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_xtext_round_trip(text: str) -> None:
    """RFC 3461 4: what is encoded is legal in a parameter and decodes to the same text."""
    encoded = xtext(text)
    assert re.fullmatch(r"[!-<>-~]*", encoded)
    assert unxtext(encoded) == text


@given(st.binary(max_size=60))
def test_any_octets_give_parameters_or_bad_parameter(raw: bytes) -> None:
    """No octets crash the parsers, and nothing with a control character gets through."""
    for prefix in (b"", b"ENVID=", b"ORCPT=utf-8;", b"NOTIFY="):
        for smtputf8 in (False, True):
            try:
                found = rcpt_parameters(prefix + raw, smtputf8=smtputf8).orcpt
            except BadParameter:
                continue
            assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", found)
        try:
            assert mail_parameters(prefix + raw).envid.isprintable()
        except BadParameter:
            continue
