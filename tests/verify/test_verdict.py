"""The verdict as a function of what was found: who may be told, what is refused, how events call it."""

import pytest

from libs.mail import replies
from libs.mail.records import Action, Enforce, Trace
from services.verify import arc, dmarc
from services.verify.dkim import Checked
from services.verify.dkim import Result as Dkim
from services.verify.spf import Result as Spf
from services.verify.verdict import Found, verdict

CHAIN = arc.Checked(arc.Result.NONE)
NONE = dmarc.Checked(dmarc.Result.NONE, "sender.example")


def judged(sender: str, mailfrom: Spf | None, *signatures: Checked) -> tuple[bool, dict[str, str]]:
    trace = Trace(1, "office.example", "192.0.2.1", "client.example", sender)
    made = verdict("id1", trace, Found(mailfrom, Spf.NONE, signatures, NONE, CHAIN, ()), "mx1.backup.example")
    assert made.action is Action.ACCEPT
    return made.may_notify, made.results


def passed(domain: str) -> Checked:
    return Checked(Dkim.PASS, "", domain, "s", "rsa-sha256", "abcd")


@pytest.mark.parametrize("result", list(Spf))
def test_only_a_pass_of_the_return_path_may_be_told(result: Spf) -> None:
    """Rule 12: of all SPF results only pass lets a DSN go out; whatever it is, the mail is accepted."""
    assert judged("bob@sender.example", result)[0] is (result is Spf.PASS)


@pytest.mark.parametrize("result", list(Dkim))
def test_only_a_passing_signature_vouches(result: Dkim) -> None:
    """Rule 12: a signature of the right domain counts when it passes, and only then."""
    signature = passed("sender.example")._replace(result=result)
    assert judged("bob@sender.example", Spf.NONE, signature)[0] is (result is Dkim.PASS)


@pytest.mark.parametrize(
    ("signer", "sender", "vouches"),
    [
        ("sender.example", "bob@sender.example", True),
        ("sender.example", "bob@SENDER.example", True),
        ("sender.example", "bob@bounce.sender.example", True),
        ("bounce.sender.example", "bob@sender.example", False),
        ("nder.example", "bob@sender.example", False),
        ("example", "bob@sender.example", False),
        ("spam.example", "bob@sender.example", False),
        ("sender.example", "", False),
    ],
)
def test_whose_signature_vouches(signer: str, sender: str, vouches: bool) -> None:
    """The return path's own domain, or one above it; never a top level, one below it, or another."""
    assert judged(sender, None if not sender else Spf.FAIL, passed(signer))[0] is vouches


def test_results_are_named_for_events() -> None:
    """One word a method: pass where any signature passes, else the first; with <> that of HELO."""
    failed = Checked(Dkim.FAIL, "body has changed", "a.example")
    assert judged("bob@sender.example", Spf.SOFTFAIL, failed, passed("a.example"))[1] == {
        "spf": "softfail",
        "dkim": "pass",
        "dmarc": "none",
        "arc": "none",
    }
    assert judged("", None, failed)[1] == {"spf": "none", "dkim": "fail", "dmarc": "none", "arc": "none"}
    assert judged("bob@sender.example", Spf.PASS)[1] == {
        "spf": "pass",
        "dkim": "none",
        "dmarc": "none",
        "arc": "none",
    }


@pytest.mark.parametrize("enforce", list(Enforce))
@pytest.mark.parametrize("policy", [None, *dmarc.Policy])
@pytest.mark.parametrize("result", list(dmarc.Result))
@pytest.mark.parametrize("mailfrom", [None, *Spf])
def test_what_is_refused(
    mailfrom: Spf | None, result: dmarc.Result, policy: dmarc.Policy | None, enforce: Enforce
) -> None:
    """DMARC fail with reject, and with `spf` SPF fail of MAIL FROM; nothing else, and with `off` nothing."""
    sender = "bob@sender.example" if mailfrom is not None else ""
    trace = Trace(1, "office.example", "192.0.2.1", "client.example", sender)
    found = Found(mailfrom, Spf.FAIL, (), dmarc.Checked(result, "sender.example", policy), CHAIN, ())
    made = verdict("id1", trace, found, "mx1.backup.example", enforce)
    reply = None
    if enforce is Enforce.SPF and mailfrom is Spf.FAIL:
        reply = replies.SPF_FAILED
    if enforce is not Enforce.OFF and (result, policy) == (dmarc.Result.FAIL, dmarc.Policy.REJECT):
        reply = replies.DMARC_FAILED
    assert made.action is (Action.ACCEPT if reply is None else Action.REJECT)
    assert reply is None or replies.policy(made.reply, permanent=True) == reply
    assert bool(made.reply) == (reply is not None)
