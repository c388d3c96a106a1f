"""What was found about a message, told: as JSON, and in words for whoever has a complaint to answer."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from libs.mail import replies
from libs.mail.records import Action, Trace, Verdict
from services.verify import arc, dkim, dmarc, spf
from services.verify.inquiry import Inquiry
from services.verify.verdict import Found, by_relay, domain_of


class Asked(NamedTuple):
    """A question to DNS and its answer; `kind` as in libs/runtime/dns.py."""

    name: str
    rtype: str
    kind: str
    records: Sequence[str | tuple[int, str]]


def account(
    inquiry: Inquiry,
    trace: Trace,
    found: Found,
    why: tuple[str, str],
    verdict: Verdict,
    asked: Iterable[Asked],
) -> dict[str, Any]:
    """The JSON object. What could not be checked for want of what it needs is not in it; the verdict and its
    field stand there only when all was. `why`: what decided SPF of MAIL FROM and HELO."""
    told: dict[str, Any] = {}
    if inquiry.of_sender:
        told["spf"] = _sender(trace, found, why)
    if inquiry.message is not None:
        told["dkim"] = [_signature(each) for each in found.signatures]
        told["arc"] = _chain(found.chain)
        told["dmarc"] = _author(found.author)
    if inquiry.whole:
        told["verdict"] = {
            "action": verdict.action,
            "reply": _heard(verdict),
            "may_notify": verdict.may_notify,
            "strip": verdict.strip,
        }
        told["header"] = verdict.fields.decode()
    told["dns"] = [_asked(each) for each in asked]
    return told


def _heard(verdict: Verdict) -> str:
    """The reply to the final dot, "" where that is the mail's own 250."""
    if verdict.action is Action.ACCEPT:
        return ""
    return replies.policy(verdict.reply, permanent=verdict.action is Action.REJECT).wire().decode().strip()


def _sender(trace: Trace, found: Found, why: tuple[str, str]) -> dict[str, Any]:
    """The result that counts, of MAIL FROM or, without one, of HELO (RFC 7208 section 2.4)."""
    helo = {"result": found.helo, "domain": trace.helo, "reason": _reason(trace, found.helo, why[1])}
    if found.mailfrom is None:
        return {**helo, "identity": "helo"}
    return {
        "result": found.mailfrom,
        "domain": domain_of(trace.reverse_path),
        "reason": _reason(trace, found.mailfrom, why[0]),
        "identity": "mailfrom",
        "helo": helo,
    }


def _reason(trace: Trace, result: spf.Result, why: str) -> str:
    if not trace.client:
        return by_relay(trace)
    return why or (spf.UNANSWERED if result is spf.Result.TEMPERROR else "")


def _signature(checked: dkim.Checked) -> dict[str, Any]:
    return {
        "result": checked.result,
        "domain": checked.domain,
        "selector": checked.selector,
        "algorithm": checked.algorithm,
        "reason": checked.reason,
    }


def _author(checked: dmarc.Checked) -> dict[str, Any]:
    return {
        "result": checked.result,
        "domain": checked.domain,
        "policy": checked.policy or "",
        "record": checked.record,
        "aligned": checked.aligned,
        "reason": checked.reason,
    }


def _chain(checked: arc.Checked) -> dict[str, Any]:
    return {
        "result": checked.result,
        "instances": checked.instances,
        "sealers": checked.sealers,
        "reason": checked.reason,
    }


def _asked(asked: Asked) -> dict[str, Any]:
    records = [_record(record) for record in asked.records]
    return {"name": asked.name, "type": asked.rtype, "answer": asked.kind, "records": records}


def _record(record: str | tuple[int, str]) -> str:
    return record if isinstance(record, str) else f"{record[0]} {record[1] or '.'}"


def in_words(told: dict[str, Any]) -> str:
    """What `account` gave, a line each; nothing in it can steer a terminal."""
    lines = []
    if "spf" in told:
        spf = told["spf"]
        lines.append(_line(f"SPF of {_CALLED[spf['identity']]}", spf, spf["domain"]))
        if "helo" in spf:
            lines.append(_line("SPF of HELO", spf["helo"], spf["helo"]["domain"]))
    for each in told.get("dkim", ()):
        named = [each[name] for name in ("selector", "algorithm") if each[name]]
        lines.append(_line("DKIM", each, each["domain"] + (f" ({', '.join(named)})" if named else "")))
    if told.get("dkim") == []:
        lines.append("DKIM: the message has no signature")
    if "dmarc" in told:
        author = told["dmarc"]
        wishes = f" (the record of {author['record']} says {author['policy']})" if author["policy"] else ""
        lines.append(_line("DMARC", author, author["domain"] + wishes))
    if told.get("arc", {}).get("instances"):
        lines.append(_line("ARC", told["arc"], ", ".join(told["arc"]["sealers"])))
    if "verdict" in told:
        verdict = told["verdict"]
        told_of = "is told" if verdict["may_notify"] else "is not told: nothing shows that he sent it"
        lines += [
            f"Verdict: {verdict['action']}" + (f" ({verdict['reply']})" if verdict["reply"] else ""),
            f"If it cannot be delivered, its sender {told_of}.",
        ]
        if verdict["strip"]:
            lines.append(f"Fields taken out, for they claim to be ours: {len(verdict['strip'])}")
        lines += ["Field:", *(f"    {line.expandtabs(4)}" for line in told["header"].splitlines())]
    lines.append("DNS:" if told["dns"] else "DNS: nothing was asked")
    for each in told["dns"]:
        answers = each["records"] if each["answer"] == "ok" else [f"({each['answer']})"]
        lines += [f"    {each['name']} {each['type']} {answer}" for answer in answers]
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


_CALLED = {"mailfrom": "MAIL FROM", "helo": "HELO"}


def _line(what: str, each: dict[str, Any], of: str) -> str:
    said = f"{what}: {each['result']}" + (f" for {of}" if of else "")
    return said + (f": {each['reason']}" if each["reason"] else "")
