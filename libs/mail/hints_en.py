"""The words of hints.py in English: what is wrong, and what to do where, after each server's manual."""

from collections.abc import Mapping

from libs.mail.trouble import Server, Trouble

_LATER = "; then `postfix reload`"
_POSTFIX = (
    "write {lines} into /etc/postfix/backupmx.cidr and put `check_client_access "
    "cidr:/etc/postfix/backupmx.cidr` into main.cf, first in smtpd_client_restrictions, "
    "smtpd_helo_restrictions and smtpd_sender_restrictions, and in smtpd_recipient_restrictions behind "
    "reject_unauth_destination and reject_unverified_recipient" + _LATER
)
_POSTSCREEN = (
    "write {lines} into /etc/postfix/postscreen_backupmx.cidr and set `postscreen_access_list = "
    "permit_mynetworks, cidr:/etc/postfix/postscreen_backupmx.cidr` in main.cf" + _LATER
)
_ZIMBRA = (
    "write {lines} into /opt/zimbra/conf/postfix_rbl_override, run `postmap "
    "/opt/zimbra/conf/postfix_rbl_override`, then `zmprov mcf +zimbraMtaRestriction "
    '"check_client_access lmdb:/opt/zimbra/conf/postfix_rbl_override"`'
)
_MICROSOFT_365 = (
    "run `Set-HostedConnectionFilterPolicy -Identity Default -IPAllowList @{{Add={quoted}}}` in Exchange "
    "Online PowerShell (Defender portal: Anti-spam policies, Connection filter policy, IP allow list)"
)
_EXCHANGE = (
    "run `Set-TransportConfig -InternalSMTPServers @{{Add={quoted}}}` in the Exchange Management Shell; on "
    "an Edge server also {lines}"
)
_GATEWAY = (
    "add {each} as an inbound gateway in the Admin console (Apps, Google Workspace, Gmail, Spam, phishing "
    "and malware, Inbound gateway)"
)
_RSPAMD = (
    "put `backupmx {{ priority = high; ip = [{quoted}]; apply {{ want_spam = yes; }} }}` into "
    "/etc/rspamd/local.d/settings.conf and reload Rspamd"
)
_S, _T = Server, Trouble
ADVICE: Mapping[tuple[Server, Trouble], str] = {
    (_S.POSTFIX, _T.ADDRESS): _POSTFIX,
    (_S.POSTFIX, _T.SPF): (
        "exempt {each} from the SPF check (policyd-spf: `Whitelist = {commas}` in "
        "/etc/postfix-policyd-spf-python/policyd-spf.conf): mail for your domain comes through us with its "
        "sender's own address"
    ),
    (_S.POSTFIX, _T.RATE): (
        "set `smtpd_client_event_limit_exceptions = $mynetworks, {commas}` in main.cf" + _LATER
    ),
    (_S.POSTFIX, _T.CATCH_ALL): (
        "let main.cf say who there is: `local_recipient_maps = proxy:unix:passwd.byname $alias_maps` for "
        "users of the machine, virtual_mailbox_maps or virtual_alias_maps without `@domain` for others, "
        "relay_recipient_maps for a server behind it"
        + _LATER
        + "; until then mail to anybody is taken while "
        "it is down, and bounces later"
    ),
    (_S.POSTSCREEN, _T.ADDRESS): _POSTSCREEN,
    (_S.POSTSCREEN, _T.GREYLIST): _POSTSCREEN,
    (_S.ZIMBRA, _T.ADDRESS): _ZIMBRA,
    (_S.EXIM, _T.ADDRESS): (
        "add `!hosts = <; {semicolons}` to every `deny` and `defer` of your ACLs that looks at the client or "
        "the sender, and to none that verifies the recipient (Debian: {lines}, a line each, in "
        "/etc/exim4/host_local_deny_exceptions)"
    ),
    (_S.MICROSOFT_365, _T.ADDRESS): _MICROSOFT_365,
    (_S.MICROSOFT_365, _T.SPF): (
        "make an inbound connector for us with enhanced filtering: `New-InboundConnector -Name backupmx "
        "-ConnectorType Partner -SenderDomains * -SenderIPAddresses {quoted} -EFSkipIPs {quoted}` in "
        "Exchange Online PowerShell"
    ),
    (_S.EXCHANGE, _T.ADDRESS): _EXCHANGE,
    (_S.EXCHANGE, _T.SPF): _EXCHANGE,
    (_S.GOOGLE, _T.ADDRESS): (
        "add {each} to the email allowlist in the Admin console (Apps, Google Workspace, Gmail, Spam, "
        "phishing and malware, Email allowlist)"
    ),
    (_S.GOOGLE, _T.SPF): _GATEWAY,
    (_S.GOOGLE, _T.RATE): _GATEWAY,
    (_S.HMAILSERVER, _T.ADDRESS): (
        "add an IP range for {each} (Settings, Advanced, IP Ranges) with a higher priority than Internet, "
        "deliveries from external to local allowed, without SMTP authentication and without anti-spam"
    ),
    (_S.HMAILSERVER, _T.GREYLIST): ("add {each} in Settings, Anti-spam, Greylisting, White listing"),
    (_S.MDAEMON, _T.ADDRESS): (
        "add {each} to Trusted IPs (Security, Security Settings) and to the allow list of Dynamic Screening"
    ),
    (_S.KERIO, _T.ADDRESS): (
        "add {each} to an IP address group (Definitions) and choose it as custom whitelist in Content "
        "Filter, Spam Filter, Blacklists, and as exception in SMTP Server, Security Options"
    ),
    (_S.KERIO, _T.GREYLIST): (
        "add {each} to an IP address group (Definitions) and except it in Content Filter, Spam Filter, "
        "Greylisting"
    ),
    (_S.SENDMAIL, _T.ADDRESS): (
        "add {lines} to /etc/mail/access and run `makemap hash /etc/mail/access < /etc/mail/access`"
    ),
    (_S.COURIER, _T.ADDRESS): (
        "add {lines} (a tab between) to /etc/courier/smtpaccess/default and run `makesmtpaccess`"
    ),
    (_S.QMAIL, _T.ADDRESS): ("add {lines} to the rules of tcpserver (/etc/tcp.smtp) and build its cdb again"),
    (_S.RSPAMD, _T.ADDRESS): _RSPAMD,
    (_S.RSPAMD, _T.GREYLIST): _RSPAMD,
    (_S.POSTGREY, _T.GREYLIST): (
        "add {lines}, a line each, to /etc/postgrey/whitelist_clients.local (or the file that "
        "--whitelist-clients names) and restart Postgrey"
    ),
    (_S.SQLGREY, _T.GREYLIST): ("add {lines}, a line each, to /etc/sqlgrey/clients_ip_whitelist.local"),
    (_S.MILTER_GREYLIST, _T.GREYLIST): ("put {lines} before the other rules of greylist.conf"),
    (_S.ANY, _T.ADDRESS): (
        "allow {each} on the mail server and on whatever stands before it (firewall, fail2ban, spam filter)"
    ),
    (_S.ANY, _T.LISTED): ("exempt {each} from block lists"),
    (_S.ANY, _T.NAME): ("exempt {each} from the checks of EHLO names and reverse DNS"),
    (_S.ANY, _T.SENDER): ("accept MAIL FROM:<postmaster@{name}> from {each} without a sender check"),
    (_S.ANY, _T.SPF): (
        "exempt {each} from SPF and DMARC: mail for your domain comes through us with its sender's "
        "own address"
    ),
    (_S.ANY, _T.RATE): ("exempt {each} from limits of connections and commands"),
    (_S.ANY, _T.RELAY): ("make it take mail for the domain from {each}"),
    (_S.ANY, _T.LOGIN): ("let {each} hand over mail on port 25 without a login, with or without TLS"),
    (_S.ANY, _T.GREYLIST): ("exempt {each} from greylisting"),
    (_S.ANY, _T.DROPPED): (
        "if it is up, see whether the firewall or fail2ban drops {each}: `fail2ban-client unban {blanks}`, "
        "and `ignoreip = 127.0.0.1/8 ::1 {blanks}` in /etc/fail2ban/jail.local"
    ),
    (_S.ANY, _T.CATCH_ALL): (
        "make it refuse unknown recipients at RCPT (550 5.1.1): until then mail to anybody is taken while it "
        "is down, and bounces later"
    ),
    (_S.ANY, _T.LATE): (
        "make it refuse unknown recipients at RCPT (550 5.1.1), not after the content: we ask there"
    ),
}
WHAT: Mapping[Trouble, str] = {
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
SAME = " The same for the addresses of {others}."
AND = " and "
