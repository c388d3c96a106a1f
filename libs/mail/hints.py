"""What a domain's owner is told to do about a primary that is in its own way: a sentence to paste, with our
addresses in it. One table, after each server's manual: which trouble, at which server, what to do.
"""

from collections.abc import Sequence
from typing import NamedTuple

from libs.mail.knowledge import Callouts, Health, PrimaryFacts, PrimaryState
from libs.mail.reply import Foreign, parse_line
from libs.mail.stance import Stance
from libs.mail.trouble import Server, Trouble, before, server, trouble

_LATELY_S = 7 * 86_400.0  # a greylisting that is older says nothing of today


class Advice(NamedTuple):
    """`text` with {them} (our addresses and names), {each} (the addresses), {quoted}, {semicolons}, {name},
    and {lines}: `line` for each address."""

    text: str
    line: str = "{address}"


_LATER = "; then `postfix reload`"
_POSTFIX = Advice(
    "write {lines} into /etc/postfix/backupmx.cidr and put `check_client_access "
    "cidr:/etc/postfix/backupmx.cidr` into main.cf, first in smtpd_client_restrictions, "
    "smtpd_helo_restrictions and smtpd_sender_restrictions, and in smtpd_recipient_restrictions behind "
    "reject_unauth_destination and reject_unverified_recipient" + _LATER,
    "{address} OK",
)
_POSTSCREEN = Advice(
    "write {lines} into /etc/postfix/postscreen_backupmx.cidr and set `postscreen_access_list = "
    "permit_mynetworks, cidr:/etc/postfix/postscreen_backupmx.cidr` in main.cf" + _LATER,
    "{address} permit",
)
_ZIMBRA = Advice(
    "write {lines} into /opt/zimbra/conf/postfix_rbl_override, run `postmap "
    "/opt/zimbra/conf/postfix_rbl_override`, then `zmprov mcf +zimbraMtaRestriction "
    '"check_client_access lmdb:/opt/zimbra/conf/postfix_rbl_override"`',
    "{address} OK",
)
_MICROSOFT_365 = Advice(
    "run `Set-HostedConnectionFilterPolicy -Identity Default -IPAllowList @{{Add={quoted}}}` in Exchange "
    "Online PowerShell (Defender portal: Anti-spam policies, Connection filter policy, IP allow list)"
)
_EXCHANGE = Advice(
    "run `Set-TransportConfig -InternalSMTPServers @{{Add={quoted}}}` in the Exchange Management Shell; on "
    "an Edge server also {lines}",
    "Add-IPAllowListEntry -IPAddress {address}",
)
_GATEWAY = Advice(
    "add {each} as an inbound gateway in the Admin console (Apps, Google Workspace, Gmail, Spam, phishing "
    "and malware, Inbound gateway)"
)
_RSPAMD = Advice(
    "put `backupmx {{ priority = high; ip = [{quoted}]; apply {{ want_spam = yes; }} }}` into "
    "/etc/rspamd/local.d/settings.conf and reload Rspamd"
)
_S, _T = Server, Trouble
ADVICE: dict[tuple[Server, Trouble], Advice] = {
    (_S.POSTFIX, _T.ADDRESS): _POSTFIX,
    (_S.POSTFIX, _T.SPF): Advice(
        "exempt {each} from the SPF check (policyd-spf: `Whitelist = {commas}` in "
        "/etc/postfix-policyd-spf-python/policyd-spf.conf): mail for your domain comes through us with its "
        "sender's own address"
    ),
    (_S.POSTFIX, _T.RATE): Advice(
        "set `smtpd_client_event_limit_exceptions = $mynetworks, {commas}` in main.cf" + _LATER
    ),
    (_S.POSTSCREEN, _T.ADDRESS): _POSTSCREEN,
    (_S.POSTSCREEN, _T.GREYLIST): _POSTSCREEN,
    (_S.ZIMBRA, _T.ADDRESS): _ZIMBRA,
    (_S.EXIM, _T.ADDRESS): Advice(
        "add `!hosts = <; {semicolons}` to every `deny` and `defer` of your ACLs that looks at the client or "
        "the sender, and to none that verifies the recipient (Debian: {lines}, a line each, in "
        "/etc/exim4/host_local_deny_exceptions)"
    ),
    (_S.MICROSOFT_365, _T.ADDRESS): _MICROSOFT_365,
    (_S.MICROSOFT_365, _T.SPF): Advice(
        "make an inbound connector for us with enhanced filtering: `New-InboundConnector -Name backupmx "
        "-ConnectorType Partner -SenderDomains * -SenderIPAddresses {quoted} -EFSkipIPs {quoted}` in "
        "Exchange Online PowerShell"
    ),
    (_S.EXCHANGE, _T.ADDRESS): _EXCHANGE,
    (_S.EXCHANGE, _T.SPF): _EXCHANGE,
    (_S.GOOGLE, _T.ADDRESS): Advice(
        "add {each} to the email allowlist in the Admin console (Apps, Google Workspace, Gmail, Spam, "
        "phishing and malware, Email allowlist)"
    ),
    (_S.GOOGLE, _T.SPF): _GATEWAY,
    (_S.GOOGLE, _T.RATE): _GATEWAY,
    (_S.HMAILSERVER, _T.ADDRESS): Advice(
        "add an IP range for {each} (Settings, Advanced, IP Ranges) with a higher priority than Internet, "
        "deliveries from external to local allowed, without SMTP authentication and without anti-spam"
    ),
    (_S.HMAILSERVER, _T.GREYLIST): Advice("add {each} in Settings, Anti-spam, Greylisting, White listing"),
    (_S.MDAEMON, _T.ADDRESS): Advice(
        "add {each} to Trusted IPs (Security, Security Settings) and to the allow list of Dynamic Screening"
    ),
    (_S.KERIO, _T.ADDRESS): Advice(
        "add {each} to an IP address group (Definitions) and choose it as custom whitelist in Content "
        "Filter, Spam Filter, Blacklists, and as exception in SMTP Server, Security Options"
    ),
    (_S.KERIO, _T.GREYLIST): Advice(
        "add {each} to an IP address group (Definitions) and except it in Content Filter, Spam Filter, "
        "Greylisting"
    ),
    (_S.SENDMAIL, _T.ADDRESS): Advice(
        "add {lines} to /etc/mail/access and run `makemap hash /etc/mail/access < /etc/mail/access`",
        "Connect:{tagged} OK",
    ),
    (_S.COURIER, _T.ADDRESS): Advice(
        "add {lines} (a tab between) to /etc/courier/smtpaccess/default and run `makesmtpaccess`",
        "{address} allow,BLOCK",
    ),
    (_S.QMAIL, _T.ADDRESS): Advice(
        "add {lines} to the rules of tcpserver (/etc/tcp.smtp) and build its cdb again",
        '{address}:allow,RBLSMTPD=""',
    ),
    (_S.RSPAMD, _T.ADDRESS): _RSPAMD,
    (_S.RSPAMD, _T.GREYLIST): _RSPAMD,
    (_S.POSTGREY, _T.GREYLIST): Advice(
        "add {lines}, a line each, to /etc/postgrey/whitelist_clients.local (or the file that "
        "--whitelist-clients names) and restart Postgrey"
    ),
    (_S.SQLGREY, _T.GREYLIST): Advice("add {lines}, a line each, to /etc/sqlgrey/clients_ip_whitelist.local"),
    (_S.MILTER_GREYLIST, _T.GREYLIST): Advice(
        "put {lines} before the other rules of greylist.conf", "racl whitelist addr {address}"
    ),
    (_S.ANY, _T.ADDRESS): Advice(
        "allow {each} on the mail server and on whatever stands before it (firewall, fail2ban, spam filter)"
    ),
    (_S.ANY, _T.LISTED): Advice("exempt {each} from block lists"),
    (_S.ANY, _T.NAME): Advice("exempt {each} from the checks of EHLO names and reverse DNS"),
    (_S.ANY, _T.SENDER): Advice("accept MAIL FROM:<postmaster@{name}> from {each} without a sender check"),
    (_S.ANY, _T.SPF): Advice(
        "exempt {each} from SPF and DMARC: mail for your domain comes through us with its sender's "
        "own address"
    ),
    (_S.ANY, _T.RATE): Advice("exempt {each} from limits of connections and commands"),
    (_S.ANY, _T.RELAY): Advice("make it take mail for the domain from {each}"),
    (_S.ANY, _T.LOGIN): Advice("let {each} hand over mail on port 25 without a login, with or without TLS"),
    (_S.ANY, _T.GREYLIST): Advice("exempt {each} from greylisting"),
    (_S.ANY, _T.DROPPED): Advice(
        "if it is up, see whether the firewall or fail2ban drops {each}: `fail2ban-client unban {blanks}`, "
        "and `ignoreip = 127.0.0.1/8 ::1 {blanks}` in /etc/fail2ban/jail.local"
    ),
    (_S.ANY, _T.CATCH_ALL): Advice(
        "make it refuse unknown recipients at RCPT (550 5.1.1): until then mail to anybody is taken while it "
        "is down, and bounces later"
    ),
    (_S.ANY, _T.LATE): Advice(
        "make it refuse unknown recipients at RCPT (550 5.1.1), not after the content: we ask there"
    ),
}
_WHAT: dict[Trouble, str] = {
    _T.ADDRESS: "Your mail server refuses {them}",
    _T.LISTED: "Your mail server refuses {them} because of a block list",
    _T.NAME: "Your mail server refuses {them} because of the name or the reverse DNS",
    _T.SENDER: "Your mail server refuses the sender of our questions, postmaster@{name}",
    _T.SPF: "Your mail server checks {them} against the SPF or DMARC record of each sender",
    _T.RATE: "Your mail server limits {them}",
    _T.RELAY: "Your mail server says that it does not serve your domain",
    _T.LOGIN: "Your mail server wants a login or TLS from {them}",
    _T.GREYLIST: "Your mail server greylists {them}",
    _T.DROPPED: "Your mail server does not answer {them}",
    _T.CATCH_ALL: "Your mail server accepts every recipient",
    _T.LATE: "Your mail server refuses unknown recipients only after the content",
}
# Where a server has one place for whom it trusts, that is the answer to all of these.
_AS_ADDRESS = (_T.LISTED, _T.NAME, _T.SENDER, _T.RATE)


class Us(NamedTuple):
    """How the primary sees us. `addresses`: the published ones of this host; `name`: its EHLO name; `others`:
    the names of our other hosts."""

    addresses: Sequence[str]
    name: str
    others: Sequence[str] = ()


def hint(stuck: Trouble, at: Server, us: Us) -> str:
    """One or two sentences for the owner: what is wrong, what to do where. Without published addresses our
    names stand for them."""
    addresses = us.addresses or (us.name,)
    advice = ADVICE.get((at, stuck))
    if advice is None and stuck in _AS_ADDRESS:
        advice = ADVICE.get((at, Trouble.ADDRESS))
    advice = advice or ADVICE[Server.ANY, stuck]
    lines = [advice.line.format(address=each, tagged=_tagged(each)) for each in addresses]
    filled = {
        "them": f"{_and(addresses)} ({us.name})" if us.addresses else us.name,
        "each": _and(addresses),
        "lines": _and([f"`{line}`" for line in lines]),
        "quoted": ",".join(f'"{each}"' for each in addresses),
        "commas": ", ".join(addresses),
        "semicolons": " ; ".join(addresses),
        "blanks": " ".join(addresses),
        "name": us.name,
    }
    text = f"{_WHAT[stuck].format(**filled)}: {advice.text.format(**filled)}."
    if us.others and stuck not in (Trouble.CATCH_ALL, Trouble.LATE):
        text += f" The same for the addresses of {_and(us.others)}."
    return text


def for_owner(facts: PrimaryFacts | None, primary: PrimaryState | None, us: Us, now: float) -> str:
    """What the owner of a domain should know of its primary now (wall seconds), "" for nothing: from what
    callouts learnt (`facts`) and from what deliveries did (`primary`)."""
    stance, reply, reason = _stands(facts, primary, now)
    stuck = trouble(stance, reply, reason)
    if stuck is None:
        return ""
    at = Server.ANY if facts is None else _server(facts.server)
    if facts is not None and stuck is Trouble.GREYLIST:
        at = before(at, _server(facts.greylister))
    return hint(stuck, before(at, server("", reply)), us)


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


def _and(words: Sequence[str]) -> str:
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]


def _tagged(address: str) -> str:
    return f"IPv6:{address}" if ":" in address else address
