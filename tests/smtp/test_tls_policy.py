"""DANE and MTA-STS together: what TLS must be."""

import pytest

from libs.smtp.dane import Tlsa
from libs.smtp.sts_policy import Mode, Policy
from libs.smtp.tls_policy import ANY, UNSIGNED, Barred, Need, Signed, Tls, required

DOMAIN, HOST = "office.example", "mx.office.example"
GOOD, USELESS = Tlsa(3, 1, 1, bytes(32)), Tlsa(1, 1, 1, bytes(32))
DANE = Tls(Need.DANE, "DANE", HOST, (HOST, DOMAIN), (GOOD,))
NAMED = Tls(Need.NAMED, "MTA-STS", HOST)
OTHERS = Barred("MTA-STS: mx.office.example is not in the policy")
SILENT = Barred("DANE: no TLSA answer")


def policy(mode: Mode, *mx: str) -> Policy:
    return Policy(mode, mx or (HOST,), 86_400)


@pytest.mark.parametrize(
    ("sts", "signed", "found"),
    [
        (None, UNSIGNED, ANY),
        (None, Signed((GOOD,)), DANE),
        (None, Signed((USELESS,)), Tls(Need.ENCRYPTED, "DANE", HOST)),
        (None, Signed((USELESS, GOOD)), DANE),
        (None, Signed(trouble=True), SILENT),
        (policy(Mode.ENFORCE), UNSIGNED, NAMED),
        (policy(Mode.ENFORCE, "*.office.example"), UNSIGNED, NAMED),
        (policy(Mode.ENFORCE, "mx.other.example"), UNSIGNED, OTHERS),
        (policy(Mode.TESTING, "mx.other.example"), UNSIGNED, ANY),
        (policy(Mode.TESTING), UNSIGNED, ANY),
        (Policy(Mode.NONE, (), 86_400), UNSIGNED, ANY),
        # RFC 8461 section 2: MTA-STS never makes up for a DANE that fails.
        (policy(Mode.ENFORCE), Signed((GOOD,)), DANE),
        (policy(Mode.ENFORCE), Signed(trouble=True), SILENT),
        (policy(Mode.ENFORCE, "mx.other.example"), Signed((GOOD,)), OTHERS),
        (policy(Mode.ENFORCE), Signed((USELESS,)), NAMED),
        (policy(Mode.TESTING), Signed((USELESS,)), Tls(Need.ENCRYPTED, "DANE", HOST)),
    ],
)
def test_required(sts: Policy | None, signed: Signed, found: Tls | Barred) -> None:
    assert required(DOMAIN, HOST, sts, signed) == found
