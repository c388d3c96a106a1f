"""The words of diagnoses.py in English: of each finding what is so, why it matters, what to do."""

from collections.abc import Mapping

from services.control.findings import Kind, Light

LIGHTS: Mapping[Light, str] = {
    Light.MX: "DNS names your server first and us behind it",
    Light.REACHABLE: "Your server is reached from here",
    Light.CALLOUTS: "It says which recipients there are",
    Light.SPF: "It takes mail of strangers from us",
    Light.RECIPIENTS: "We know your recipients",
}
UNSEEN = "Nobody knows until your server is reached."
_UNKNOWN = "While it cannot be asked, we can only take mail on suspicion, and some of it will come back."
_SAME = "It is then as if it were away: mail waits with us."

WORDS: Mapping[Kind, tuple[str, str, str]] = {
    Kind.NXDOMAIN: (
        "DNS says that {domain} does not exist.",
        "Nobody can send mail to it.",
        "See with your registrar whether the domain has expired, and whether its name servers are right.",
    ),
    Kind.DNS_TROUBLE: (
        "The name servers of {domain} do not answer.",
        "Nobody learns where its mail goes. What we took waits with us for 30 days at least.",
        "Ask whoever runs the name servers; `dig +trace {domain} MX` shows where it ends.",
    ),
    Kind.NULL_MX: (
        "{domain} says in DNS that it takes no mail (a null MX record).",
        "Senders do not even try.",
        "Replace `{domain}. MX 0 .` by the MX record of your server and by ours: {records}",
    ),
    Kind.NO_MX: (
        "{domain} has no MX records.",
        "Its address alone counts as mail server then, and there is no place for a backup.",
        "Add an MX record for your server with preference 10, and ours: {records}",
    ),
    Kind.NOT_NAMED: (
        "None of the MX records of {domain} names us.",
        "When your server is away senders do not find us.",
        "Add to DNS: {records}",
    ),
    Kind.HOST_MISSING: (
        "The MX records of {domain} name only some of our hosts: {at} is missing.",
        "When the others are away as well, nobody takes your mail.",
        "Add to DNS: {domain}. MX with the preference of our other host, {at}.",
    ),
    Kind.NOTHING_ABOVE: (
        "No MX record is better than ours (preference {detail}).",
        "All mail comes to us, and we know of no server to hand it to.",
        "Give your own server a lower number than {detail}, or set where it is: backupmx domain set "
        "{domain} --primary-host HOST",
    ),
    Kind.EQUAL_PREFERENCE: (
        "{at} has the same preference as we ({detail}).",
        "Senders choose by chance, and we hand nothing to a server that is not better than we.",
        "Give {at} a lower number than {detail}.",
    ),
    Kind.BELOW_US: (
        "{at} is behind us (preference {detail}).",
        "We hand nothing to it; what senders leave there is out of our sight.",
        "If it is a former backup, take it out of DNS; if it is your server, give it the lowest number.",
    ),
    Kind.OWN_ALIAS: (
        "{at} is a name of your own for our address {detail}.",
        "Mail would go round in a circle: we take it for one of us, and everything behind it is skipped. Our "
        "certificate is for our own names, too.",
        "Name us as we are called: {records}",
    ),
    Kind.MX_ADDRESS: (
        "An MX record holds an address, {at}, where a host name belongs.",
        "Many senders do not understand that.",
        "Give the server a name with an A record, and put that name into the MX record.",
    ),
    Kind.MX_ALIAS: (
        "The MX record names {at}, which is an alias of {detail}.",
        "RFC 2181 forbids it, and some senders refuse it.",
        "Put {detail} into the MX record.",
    ),
    Kind.MX_WITHOUT_ADDRESS: (
        "The MX host {at} has no address.",
        "Nobody reaches it; senders go on to the next one.",
        "Add an A (and AAAA) record for {at}, or take the MX record out.",
    ),
    Kind.MX_TROUBLE: (
        "The address of the MX host {at} cannot be looked up: its name servers do not answer.",
        "Senders wait, or go on to the next one.",
        "Ask whoever runs the name servers of {at}.",
    ),
    Kind.FORBIDDEN: (
        "{at}, where mail for {domain} should go, is no address of the Internet, or one of ours.",
        "It is never dialled, from nowhere outside.",
        "Put the public address of your line into DNS, and forward port 25 of your router to the server.",
    ),
    Kind.STS_WITHOUT_US: (
        "The MTA-STS policy of {domain} does not list {at}.",
        "Senders that honour it do not hand their mail to that host, so the backup is none for them.",
        "Add a line `mx: {at}` to https://mta-sts.{domain}/.well-known/mta-sts.txt, and change the id in "
        "DNS.",
    ),
    Kind.NOT_REGISTERED: (
        "{domain} is no relay domain here.",
        "Mail for it is put off (451) until it is one, and lost to nobody.",
        "backupmx domain add {domain}",
    ),
    Kind.PENDING: (
        "{domain} is here, and not active yet.",
        "Mail for it is put off (451). We have not yet seen its MX records name us behind a server of yours.",
        "Nothing, if you have just changed DNS: we look again by ourselves.",
    ),
    Kind.REFUSED: (
        "Nobody listens at {at}, port 25.",
        _SAME,
        "Start the mail server, or forward port 25 of the router to it. {hint}",
    ),
    Kind.SILENT: (
        "{at} does not answer ({detail}).",
        _SAME,
        "See whether it is on and the line is up. {hint}",
    ),
    Kind.UNREACHABLE: (
        "There is no way to {at}.",
        _SAME,
        "See whether the line is up, and whether DNS has the address of today.",
    ),
    Kind.NO_SOURCE: (
        "This host lacks the address that it should dial from.",
        "Owners allow our published addresses; from another one we would be strangers.",
        "For the operator: put the addresses of this host right ([host] in the configuration).",
    ),
    Kind.TURNED_AWAY: (
        "{at} turns us away at the door: {detail}",
        _SAME,
        "{hint}",
    ),
    Kind.HUNG_UP: (
        "{at} hangs up on us ({detail}).",
        _SAME,
        "{hint}",
    ),
    Kind.NO_SMTP: (
        "What answers at {at}, port 25, is no mail server.",
        _SAME,
        "Forward port 25 of the router to the mail server and to nothing else.",
    ),
    Kind.OURSELVES: (
        "The server at {at} calls itself by one of our names.",
        "Mail would go round in a circle, so nothing is handed to it.",
        "Give the server a name of its own (Postfix: myhostname), or put the right address into DNS.",
    ),
    Kind.ONE_OF_SEVERAL: (
        "Of your best servers {at} is not reached, {detail} is.",
        "Mail gets there, but every sender first tries in vain.",
        "See to {at}, or take its address out of DNS.",
    ),
    Kind.NO_STARTTLS: (
        "{at} offers no encryption (STARTTLS).",
        "Your mail can be read on its way from us to you.",
        "Give the server a certificate (Postfix: smtpd_tls_chain_files, smtpd_tls_security_level = may).",
    ),
    Kind.STARTTLS_FAILS: (
        "{at} offers STARTTLS, and it fails: {detail}",
        "Mail goes in clear then, or waits, where your domain asks for encryption.",
        "Look at certificate, key and protocols of the server (TLS 1.2 or later).",
    ),
    Kind.CERTIFICATE: (
        "The certificate of {at} is not for its name, or nobody vouches for it: {detail}",
        "It encrypts all the same. With MTA-STS or `--tls-name` mail would wait.",
        "A certificate for the name in the MX record, by a public authority.",
    ),
    Kind.NO_PIPELINING: (
        "{at} does not offer PIPELINING.",
        "What waited is handed over more slowly.",
        "Switch it on, if the server has it.",
    ),
    Kind.NO_8BITMIME: (
        "{at} does not offer 8BITMIME.",
        "We hand mail over as it came, so that signatures stay valid; a very old server may spoil it.",
        "Switch it on, if the server has it.",
    ),
    Kind.NO_SMTPUTF8: (
        "{at} does not offer SMTPUTF8.",
        "Mail from or to addresses with letters beyond ASCII is refused here, too.",
        "Switch it on, if you want such mail.",
    ),
    Kind.NO_DSN: (
        "{at} does not offer DSN.",
        "Who asked to be told of the delivery hears from us that we handed his mail over, and nothing of "
        "you.",
        "Nothing.",
    ),
    Kind.SMALLER: (
        "{at} takes mail of up to {detail} octets, less than the {size} set here.",
        "Larger mail is refused to its sender as soon as we know, as your server would do.",
        "Nothing, or backupmx domain set {domain} --max-size {detail}",
    ),
    Kind.SLOW: (
        "{at} takes {detail} seconds to answer.",
        "Senders wait 20 seconds at most for what it says of a recipient they are the first to write to.",
        "Take us out of delays and look-ups at the door (postscreen, tarpits, block lists).",
    ),
    Kind.BLOCKED: (
        "{at} refuses us, whoever we ask about: {detail}",
        _UNKNOWN,
        "{hint}",
    ),
    Kind.GREYLISTED: (
        "{at} greylists us: {detail}",
        "New recipients are put off, and what waited comes late after each outage.",
        "{hint}",
    ),
    Kind.DEFERS_ALL: (
        "{at} puts off every recipient: {detail}",
        _UNKNOWN,
        "See in the server's log what it lacks: disk space, its database of users, DNS.",
    ),
    Kind.ACCEPTS_ALL: (
        "{at} accepts a mailbox that cannot exist: {detail}",
        "During an outage we take mail to anybody, as it would, and it bounces later.",
        "{hint}",
    ),
    Kind.REFUSES_LATE: (
        "The server denies recipients only when it has the whole mail: {detail}",
        "We learn who exists from deliveries alone, and take one recipient at a time.",
        "{hint}",
    ),
    Kind.UNCLEAR_DENIAL: (
        "{at} refuses a mailbox that nobody has, but does not say that it does not exist: {detail}",
        "We then learn of nobody that he is unknown, and mail for him is taken on suspicion in an outage.",
        "Make it say 550 5.1.1. OpenSMTPD says 524 5.2.4 where `virtual` finds nobody, and 550 for a table "
        "of users: `table users file:/etc/mail/users`, and `userbase <users>` in place of `virtual <...>` in "
        "the action of {domain}; or name the mailboxes in its rule: `match from any for rcpt-to "
        "<recipients>` with `table recipients file:/etc/mail/recipients`.",
    ),
    Kind.NO_POSTMASTER: (
        "{at} knows no postmaster@{domain}: {detail}",
        "RFC 5321 wants that address; people who have a trouble with your mail write to it, and so do we.",
        "An alias postmaster, to somebody who reads it.",
    ),
    Kind.KNOWN_DENIED: (
        "{at} denies a recipient that it had: {detail}",
        "He has left, or the server has lost its list of users. We do not believe it at once.",
        "If he exists, look for what the server verifies recipients with.",
    ),
    Kind.CALLOUT_BRAKE: (
        "The server denied several recipients that it had; new denials are not believed for now.",
        "Known recipients are taken, others are put off (451).",
        "If it is right: backupmx domain release {domain}",
    ),
    Kind.SPF_CHECKED: (
        "{at} refuses a sender whose mail may come from his own servers only: {detail}",
        "It checks SPF on us. All mail that waited comes from us and not from those servers: much of it "
        "would be "
        "refused.",
        "{hint}",
    ),
    Kind.SPF_UNTRIED: (
        "Whether {at} checks SPF on us could not be tried.",
        "If it does, mail that waited is refused.",
        "For the operator: a TXT record `v=spf1 -all` at spf-test.{name}",
    ),
    Kind.REFUSING: (
        "The server refuses what we hand over: {detail}",
        "Its mail waits here; one is tried every 15 minutes.",
        "{hint}",
    ),
    Kind.BOUNCE_BRAKE: (
        "After an outage the server denied recipients that it had, so nothing bounces for now.",
        "It may have come back without its users; their mail waits.",
        "When the users are back, or never will be: backupmx domain release {domain}",
    ),
    Kind.NOBODY_KNOWN: (
        "No recipient of {domain} is known yet.",
        "We learn them one by one while mail comes and your server is up.",
        "To be ready at once: backupmx domain recipients import {domain} FILE",
    ),
}
