"""What was found about a message -> its Verdict: header fields, what to strip, may its sender be told.

Nothing is refused for an authentication result unless the relay domain wants that (its setting `enforce`),
and nothing for what could not be known.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from libs.mail import replies
from libs.mail.headers import Finding, authentication_results, received_spf
from libs.mail.records import Action, Enforce, Trace, Verdict
from libs.mail.reply import Reply
from services.verify import arc, dkim, dmarc, spf


class Found(NamedTuple):
    """`mailfrom`: SPF of the MAIL FROM identity, None with the null reverse-path; `helo`: of the HELO
    identity; `signatures`: one a DKIM signature, none if unsigned; `author`: what DMARC says of the author's
    domain; `chain`: of ARC; `strip`: ranges of forged fields, None where the header could not be read."""

    mailfrom: spf.Result | None
    helo: spf.Result
    signatures: tuple[dkim.Checked, ...]
    author: dmarc.Checked
    chain: arc.Checked
    strip: tuple[tuple[int, int], ...] | None


def domain_of(reverse_path: str) -> str:
    """The domain of a mailbox, lower case; "" for the null reverse-path."""
    return reverse_path.rpartition("@")[2].lower()


def verdict(
    id_: str,
    trace: Trace,
    found: Found,
    authserv_id: str,
    enforce: Enforce = Enforce.OFF,
    trusted: frozenset[str] = frozenset(),
) -> Verdict:
    """The record for `verdicts`. `authserv_id`: the installation's (RFC 8601 section 2.5); `enforce`: of the
    relay domain; `trusted`: domains whose ARC seals are believed."""
    sender = domain_of(trace.reverse_path)
    if trace.relay and not trace.client:
        found = found._replace(author=undecided(found.author, "the client"))
    results = {"spf": str(found.helo if found.mailfrom is None else found.mailfrom)}
    results["dkim"] = _best(found.signatures)
    results["dmarc"] = str(found.author.result)
    results["arc"] = str(found.chain.result)
    refusal = _refusal(found, enforce, trusted)
    return Verdict(
        id=id_,
        action=Action.ACCEPT if refusal is None else Action.REJECT,
        fields=_fields(
            authserv_id,
            sender,
            trace.helo,
            by_relay(trace),
            found._replace(strip=()) if found.strip else found,
        ),
        may_notify=_may_notify(sender, found),
        strip=found.strip or (),
        results=results,
        reply="" if refusal is None else f"{refusal.enhanced} {refusal.text}",
        unread=found.strip is None,
    )


def undecided(author: dmarc.Checked, missing: str) -> dmarc.Checked:
    """What DMARC says where it is not known whether SPF passes for want of what is `missing`: nothing has
    failed, and only a signature makes it pass."""
    if author.result not in (dmarc.Result.PASS, dmarc.Result.FAIL):
        return author
    if "dkim" in author.aligned:
        return author._replace(aligned=("dkim",))
    return author._replace(result=dmarc.Result.NONE, aligned=(), reason=f"not known without {missing}")


def by_relay(trace: Trace) -> str:
    """Why SPF speaks of another address than that of the connection."""
    if not trace.relay:
        return ""
    if not trace.client:
        return f"the trusted relay {trace.relay} named no client"
    return f"for {trace.client} as named by the trusted relay {trace.relay}"


def _refusal(found: Found, enforce: Enforce, trusted: frozenset[str]) -> Reply | None:
    """What the sender hears, None where the mail is accepted."""
    if enforce is Enforce.OFF:
        return None
    failed = found.author.result is dmarc.Result.FAIL and found.author.policy is dmarc.Policy.REJECT
    if failed and not _vouched(found.chain, trusted):
        return replies.DMARC_FAILED
    if enforce is Enforce.SPF and found.mailfrom is spf.Result.FAIL:
        return replies.SPF_FAILED
    return None


def _vouched(chain: arc.Checked, trusted: frozenset[str]) -> bool:
    """RFC 8617 section 7.2.1: DMARC passed where the chain began, and all who sealed it are trusted. An
    author whom nobody signed is anybody."""
    passed = chain.result is arc.Result.PASS and chain.began and chain.author
    return passed and trusted.issuperset(chain.sealers)


def of_spf(trace: Trace, found: Found, why: tuple[str, str], receiver: str) -> bytes:
    """Received-SPF (RFC 7208 section 9.1) of MAIL FROM or, with the null reverse-path, of HELO. `why`: what
    decided each of the two, for people; `receiver`: who checked."""
    result, reason = (found.helo, why[1]) if found.mailfrom is None else (found.mailfrom, why[0])
    pairs = [
        ("receiver", receiver),
        ("identity", "helo" if found.mailfrom is None else "mailfrom"),
        ("client-ip", trace.client),
        ("helo", trace.helo),
        ("envelope-from", trace.reverse_path),
    ]
    if result in (spf.Result.TEMPERROR, spf.Result.PERMERROR):
        pairs.append(("problem", reason or spf.UNANSWERED))
    elif result is not spf.Result.NONE:
        pairs.append(("mechanism", "default" if reason == spf.NO_TERM else reason))
    return received_spf(result, [(key, value) for key, value in pairs if value])


@lru_cache(maxsize=4096)
def _fields(authserv_id: str, sender: str, helo: str, by_relay: str, found: Found) -> bytes:
    """The field for the message; remembered, since one sender's mails share it. HELO is named where it says
    something, or where it is all there is (RFC 7208 section 2.4)."""
    findings = []
    if found.mailfrom is not None:
        findings.append(Finding("spf", found.mailfrom, (("smtp.mailfrom", sender),), by_relay))
    if found.mailfrom is None or found.helo is not spf.Result.NONE:
        named = (("smtp.helo", helo),) if helo else ()  # a relay may not say it
        findings.append(Finding("spf", found.helo, named, by_relay))
    findings += [_signature(checked) for checked in found.signatures] or [Finding("dkim", "none")]
    findings.append(_author(found.author))
    findings.append(Finding("arc", found.chain.result, reason=found.chain.reason))
    return authentication_results(authserv_id, findings)


def _author(checked: dmarc.Checked) -> Finding:
    """RFC 9989 section 9.1: the author's domain, and the policy that applies to it."""
    properties = (("header.from", checked.domain), ("policy.dmarc", checked.policy or ""))
    return Finding("dmarc", checked.result, tuple(pair for pair in properties if pair[1]), checked.reason)


def _signature(checked: dkim.Checked) -> Finding:
    """RFC 8601 section 2.7.1 with header.s (section 2.7.1), header.a and header.b (RFC 6008)."""
    properties = (
        ("header.d", checked.domain),
        ("header.s", checked.selector),
        ("header.a", checked.algorithm),
        ("header.b", checked.b),
    )
    return Finding("dkim", checked.result, tuple(pair for pair in properties if pair[1]), checked.reason)


def _best(signatures: Sequence[dkim.Checked]) -> str:
    """One result for events: pass where any passes, else the first."""
    if any(checked.result is dkim.Result.PASS for checked in signatures):
        return str(dkim.Result.PASS)
    return str(signatures[0].result) if signatures else "none"


def _may_notify(sender: str, found: Found) -> bool:
    """Rule 12: did the domain of the return path authenticate? By SPF for MAIL FROM, or by a DKIM signature
    of that domain or of one above it (a domain below it may belong to somebody else)."""
    if not sender:
        return False
    if found.mailfrom is spf.Result.PASS:
        return True
    return any(
        checked.result is dkim.Result.PASS and _signs_for(checked.domain, sender)
        for checked in found.signatures
    )


def _signs_for(signer: str, sender: str) -> bool:
    return signer == sender or ("." in signer and sender.endswith(f".{signer}"))
