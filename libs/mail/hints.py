"""What a domain's owner is told to do about a primary that is in its own way: a sentence to paste, with our
addresses in it. Which trouble, at which server, what to do: the words are in hints_en.py and hints_de.py.

In them {them} is our addresses and names, {each} the addresses, also as {quoted}, {commas}, {semicolons} and
{blanks}; {name} is our EHLO name, {lines} a line of a file for each address.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from libs.mail import hints_de, hints_en
from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.records import Language
from libs.mail.reply import Foreign, parse_line
from libs.mail.stance import Stance
from libs.mail.trouble import Server, Trouble, before, server, trouble

_LATELY_S = 7 * 86_400.0  # a greylisting that is older says nothing of today


_WORDS = {Language.EN: hints_en, Language.DE: hints_de}
# How an address stands in a file of the server, where not alone.
_LINES: Mapping[Server, str] = {
    Server.POSTFIX: "{address} OK",
    Server.ZIMBRA: "{address} OK",
    Server.POSTSCREEN: "{address} permit",
    Server.EXCHANGE: "Add-IPAllowListEntry -IPAddress {address}",
    Server.SENDMAIL: "Connect:{tagged} OK",
    Server.COURIER: "{address} allow,BLOCK",
    Server.QMAIL: '{address}:allow,RBLSMTPD=""',
    Server.MILTER_GREYLIST: "racl whitelist addr {address}",
}
# Where a server has one place for whom it trusts, that is the answer to all of these.
_AS_ADDRESS = (Trouble.LISTED, Trouble.NAME, Trouble.SENDER, Trouble.RATE)


class Us(NamedTuple):
    """How the primary sees us. `addresses`: the published ones of this host; `name`: its EHLO name; `others`:
    the names of our other hosts."""

    addresses: Sequence[str]
    name: str
    others: Sequence[str] = ()


def hint(stuck: Trouble, at: Server, us: Us, language: Language = Language.EN) -> str:
    """One or two sentences for the owner: what is wrong, what to do where. Without published addresses our
    names stand for them."""
    words = _WORDS[language]
    addresses = us.addresses or (us.name,)
    advice = words.ADVICE.get((at, stuck))
    if advice is None and stuck in _AS_ADDRESS:
        advice = words.ADVICE.get((at, Trouble.ADDRESS))
    advice = advice or words.ADVICE[Server.ANY, stuck]
    line = _LINES.get(at, "{address}")
    lines = [line.format(address=each, tagged=_tagged(each)) for each in addresses]
    each = _and(addresses, words.AND)
    filled = {
        "them": f"{each} ({us.name})" if us.addresses else us.name,
        "each": each,
        "lines": _and([f"`{line}`" for line in lines], words.AND),
        "quoted": ",".join(f'"{each}"' for each in addresses),
        "commas": ", ".join(addresses),
        "semicolons": " ; ".join(addresses),
        "blanks": " ".join(addresses),
        "name": us.name,
    }
    text = f"{words.WHAT[stuck].format(**filled)}: {advice.format(**filled)}."
    if us.others and stuck not in (Trouble.CATCH_ALL, Trouble.LATE):
        text += words.SAME.format(others=_and(us.others, words.AND))
    return text


def for_owner(
    facts: PrimaryFacts | None,
    primary: PrimaryState | None,
    us: Us,
    now: float,
    language: Language = Language.EN,
) -> str:
    """What the owner of a domain should know of its primary now (wall seconds), "" for nothing: from what
    callouts learnt (`facts`) and from what deliveries did (`primary`)."""
    stance, reply, reason = _stands(facts, primary, now)
    stuck = trouble(stance, reply, reason)
    if stuck is None:
        return ""
    at = Server.ANY if facts is None else _server(facts.server)
    if facts is not None and stuck is Trouble.GREYLIST:
        at = before(at, _server(facts.greylister))
    return hint(stuck, before(at, server("", reply)), us, language)


def _stands(
    facts: PrimaryFacts | None, primary: PrimaryState | None, now: float
) -> tuple[Stance, Foreign | None, str]:
    """The stance, the reply that shows it, and the reason where there was none; the worst first."""
    callouts = Callouts.OPEN if facts is None else facts.callouts
    if facts is not None and callouts is Callouts.BLOCKED:
        return Stance.BLOCKING, _said(facts.reply)[0], ""
    if primary is not None and primary.health in (Health.REFUSING, Health.DOWN):
        reply, reason = _said(primary.last_reply)
        refusing = primary.health is Health.REFUSING
        return Stance.BLOCKING if refusing else Stance.NOTHING, reply, reason
    if callouts is Callouts.CATCH_ALL:
        return Stance.CATCH_ALL, None, ""
    if callouts is Callouts.LATE_REJECT:
        return Stance.LATE_REJECTING, None, ""
    if facts is not None and facts.greylisted and now - facts.greylisted < _LATELY_S:
        return Stance.GREYLISTING, None, ""
    return Stance.FINE, None, ""


def _server(name: str) -> Server:
    """ANY also for one that only a later version knows."""
    return Server(name) if name in set(Server) else Server.ANY


def _said(line: str) -> tuple[Foreign | None, str]:
    """A reply, or a Fault's reason, of `554 no`, `BANNER: 554 no` or `CONNECT: timeout`."""
    stage, colon, rest = line.partition(": ")
    rest = rest if colon and stage.isupper() else line
    if rest[:3].isdigit():
        return parse_line(rest), ""
    return None, rest


def _and(words: Sequence[str], last: str) -> str:
    return last.join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _tagged(address: str) -> str:
    return f"IPv6:{address}" if ":" in address else address
