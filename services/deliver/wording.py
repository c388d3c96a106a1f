"""What a notice says to people, in English and German; what it says to programs is in dsn.py.

Honest and short: what became of the mail, for whom, what the other server said, and what to do now.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from libs.mail.records import Cause, Language

# A notice's subject is ASCII: it needs no encoded words.
_SUBJECT: Mapping[tuple[Language, str], str] = {
    (Language.EN, "failed"): "Undelivered mail returned to sender",
    (Language.EN, "delayed"): "Your mail is delayed; you need not send it again",
    (Language.EN, "relayed"): "Your mail was handed over",
    (Language.DE, "failed"): "Ihre Mail konnte nicht zugestellt werden",
    (Language.DE, "delayed"): "Ihre Mail wartet noch; Sie brauchen sie nicht erneut zu senden",
    (Language.DE, "relayed"): "Ihre Mail wurde weitergegeben",
}

_OPENING: Mapping[Language, str] = {
    Language.EN: "This is the mail system of {host}, a backup mail exchanger for {domain}.",
    Language.DE: "Dies ist das Mailsystem {host}, ein Ersatz-Mailserver (Backup-MX) für {domain}.",
}

_FAILED: Mapping[tuple[Language, Cause], str] = {
    (Language.EN, Cause.REFUSED): (
        "Your mail could not be delivered to the recipients below. It is not tried again for them."
    ),
    (Language.EN, Cause.EXPIRED): (
        "Your mail waited here for {next_hop} and could not be delivered in time. It is given up "
        "for the recipients below; you may send it again."
    ),
    (Language.EN, Cause.GIVEN_UP): (
        "Your mail waited here for {next_hop}. The operator of this system has given it up for the "
        "recipients below: it was not delivered to them and is not tried again."
    ),
    (Language.DE, Cause.REFUSED): (
        "Ihre Mail konnte den unten genannten Empfängern nicht zugestellt werden. Für sie wird es nicht noch "
        "einmal versucht."
    ),
    (Language.DE, Cause.EXPIRED): (
        "Ihre Mail hat hier auf {next_hop} gewartet und konnte nicht rechtzeitig zugestellt werden. Für die "
        "unten genannten Empfänger wird sie aufgegeben; Sie können sie noch einmal senden."
    ),
    (Language.DE, Cause.GIVEN_UP): (
        "Ihre Mail hat hier auf {next_hop} gewartet. Der Betreiber dieses Systems hat sie für die unten "
        "genannten Empfänger aufgegeben: Sie wurde ihnen nicht zugestellt und wird nicht noch einmal "
        "versucht."
    ),
}

_DELAYED: Mapping[Language, str] = {
    Language.EN: (
        "Your mail has not been delivered to the recipients below yet: their own mail server has not taken "
        "it. It is kept safe here and handed over as soon as that server takes it, until {until} at the "
        "latest. You need not send it again. If it cannot be delivered by then, you are told."
    ),
    Language.DE: (
        "Ihre Mail ist den unten genannten Empfängern noch nicht zugestellt: Deren eigener Mailserver hat "
        "sie noch nicht angenommen. Sie ist hier sicher verwahrt und wird übergeben, sobald er sie annimmt, "
        "längstens bis {until}. Sie brauchen sie nicht noch einmal zu senden. Gelingt die Zustellung bis "
        "dahin nicht, so erfahren Sie es."
    ),
}

_RELAYED: Mapping[Language, str] = {
    Language.EN: (
        "As you asked to be told: your mail was handed over to the mail server of the recipients below. That "
        "server does not say whether it reached their mailboxes, so no further notice comes."
    ),
    Language.DE: (
        "Wie gewünscht: Ihre Mail wurde dem Mailserver der unten genannten Empfänger übergeben. Dieser "
        "meldet nicht, ob sie in deren Postfach angekommen ist; eine weitere Nachricht kommt also nicht."
    ),
}

_SAID: Mapping[Language, str] = {Language.EN: "{host} said: {reply}", Language.DE: "{host} sagte: {reply}"}
_SOMEBODY: Mapping[Language, str] = {
    Language.EN: "the mail server of {next_hop}",
    Language.DE: "Der Mailserver von {next_hop}",
}

_DIGEST_SUBJECT: Mapping[Language, str] = {
    Language.EN: "Mail for {domain} that could not be delivered: {count}",
    Language.DE: "Nicht zustellbare Mail an {domain}: {count}",
}
_DIGEST: Mapping[Language, str] = {
    Language.EN: (
        "The mail below for {domain} could not be delivered, and its senders could not be told: nobody "
        "knows whether they are who they say. It is kept here until the day given, and then deleted. "
        "Whoever runs {host} can have it delivered after all, or deleted before. You get such a list once a "
        "day at most, and only when there is something new."
    ),
    Language.DE: (
        "Die folgenden Mails an {domain} konnten nicht zugestellt werden, und ihre Absender durften davon "
        "nichts erfahren: Niemand weiß, ob sie sind, wer sie zu sein behaupten. Sie werden hier bis zum "
        "angegebenen Tag aufbewahrt und dann gelöscht. Der Betreiber von {host} kann sie doch noch "
        "zustellen lassen oder vorher löschen. Eine solche Liste kommt höchstens einmal am Tag, und nur "
        "wenn es Neues gibt."
    ),
}
_DIGEST_ROW: Mapping[Language, str] = {
    Language.EN: "from <{sender}> of {arrived}, kept until {until}: {why}",
    Language.DE: "von <{sender}> am {arrived}, aufbewahrt bis {until}: {why}",
}
_DIGEST_MORE: Mapping[Language, str] = {
    Language.EN: "and {count} more.",
    Language.DE: "und {count} weitere.",
}
_WHY: Mapping[tuple[Language, Cause], str] = {
    (Language.EN, Cause.REFUSED): "it was refused",
    (Language.EN, Cause.EXPIRED): "it could not be delivered in time",
    (Language.EN, Cause.GIVEN_UP): "the operator gave it up",
    (Language.DE, Cause.REFUSED): "sie wurde abgelehnt",
    (Language.DE, Cause.EXPIRED): "sie konnte nicht rechtzeitig zugestellt werden",
    (Language.DE, Cause.GIVEN_UP): "der Betreiber hat sie aufgegeben",
}


def digest_subject(domain: str, count: int, language: Language) -> str:
    """May be over-long; ASCII."""
    return _DIGEST_SUBJECT[language].format(domain=domain, count=count)


def digest_opening(domain: str, host: str, language: Language) -> str:
    return _DIGEST[language].format(domain=domain, host=host)


def digest_row(
    sender: str, arrived: float, until: float, cause: Cause, reply: str, language: Language
) -> str:
    """One mail; `reply`: what its server said last, "" for nothing."""
    why = _WHY[language, cause] + (f" ({reply})" if reply else "")
    moments = {"arrived": _moment(arrived), "until": _moment(until)}
    return _DIGEST_ROW[language].format(sender=sender, why=why, **moments)


def digest_more(count: int, language: Language) -> str:
    return _DIGEST_MORE[language].format(count=count)


def subject(action: str, language: Language) -> str:
    """`action`: failed, delayed or relayed."""
    return _SUBJECT[language, action]


def opening(host: str, domain: str, language: Language) -> str:
    return _OPENING[language].format(host=host, domain=domain)


def what(action: str, cause: Cause, next_hop: str, until: float, language: Language) -> str:
    """What became of the mail. `until`: when it expires, wall seconds."""
    match action:
        case "delayed":
            return _DELAYED[language].format(until=_moment(until))
        case "relayed":
            return _RELAYED[language]
    return _FAILED[language, cause].format(next_hop=next_hop)


def said(host: str, next_hop: str, reply: str, language: Language) -> str:
    """What a server said; `host` "": it is not known which."""
    host = host or _SOMEBODY[language].format(next_hop=next_hop)
    return _SAID[language].format(host=host, reply=reply)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
