"""What a foreign server's reply speaks of: the mailbox, its quota, a policy against us, or its own trouble.

Callouts and deliveries read replies with the same eyes. Only a clear sentence about the mailbox is
NO_MAILBOX: a wrong "cannot tell" costs a callout, a wrong "no such user" costs somebody's mail. So whatever
speaks of the sender, of our address, of lists, of relaying or of limits wins over a code that speaks of a
mailbox.
521 and 556 (RFC 7504) speak of a host and a domain, whatever their enhanced code says.
Codes: RFC 5321 section 4.2, enhanced status codes: RFC 3463 and its registry.
"""

import re
from enum import StrEnum

from libs.mail.reply import Foreign, foreign


class Stage(StrEnum):
    """Where in a session a reply came or the connection broke. DOT: after the final dot was sent."""

    CONNECT = "CONNECT"
    BANNER = "BANNER"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "CONTENT"
    DOT = "DOT"
    RSET = "RSET"


class Speaks(StrEnum):
    """OK: 2yz, 3yz. NO_MAILBOX: 5yz, the mailbox does not exist or is closed. QUOTA: it exists and is full
    (4yz and 5yz). POLICY: 5yz against sender, address, content, relaying, authentication. GREYLIST: 4yz, come
    again. OVERLOADED: 421, 4.3.x, 4yz before RCPT. TEMPORARY: any other 4yz. SYSTEM: 5yz about the server,
    the domain's routing or the protocol. OTHER_PERMANENT: any other 5yz."""

    OK = "ok"
    NO_MAILBOX = "no mailbox"
    QUOTA = "quota"
    POLICY = "policy"
    GREYLIST = "greylist"
    TEMPORARY = "temporary"
    OVERLOADED = "overloaded"
    SYSTEM = "system"
    OTHER_PERMANENT = "other permanent"


_I = re.IGNORECASE
# Addresses and links are no words of the sentence: there is a mailbox spam@office.example.
_NO_WORDS = re.compile(
    r"<[^>]*>|\[[^\]]*@[^\]]*\]|https?://\S+|www\.\S+|\"[^\"]*\"@\S+|[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+"
)
_CODE_IN_TEXT = re.compile(r"#([245])\.(\d{1,3})\.(\d{1,3})")  # qmail: "sorry, ... (#5.1.1)"
_OTHER_CLASS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")

# Exim's `verify = recipient/callout` (its src/verify.c): what the server behind it said of the recipient. Of
# a sender it says so in other words.
_HANDED_ON = re.compile(r"callout verification failed: ([45]\d\d)[ -](.+)", _I)

_GREYLISTED = re.compile(r"gr[ae]y-? ?list|postgrey|greet-?pause|initial(ly)? (defer|delay)", _I)
_POSTSCREEN = re.compile(r"service currently unavailable", _I)
_COME_AGAIN = re.compile(
    r"try (it )?(again|later)|retry|come back|please wait|temporar\w+ (deferred|rejected|delayed)"
    r"|(sp(ä|ae)ter|nochmals?) (noch ?mal|erneut|versuchen)|erneut versuchen|zun(ä|ae)chst abgewiesen",
    _I,
)
_FULL = re.compile(
    r"quota|(mailbox|account|inbox|postfach|konto|user|storage)\W+(\w+\W+){0,3}(full|exceed|voll|over)\w*"
    r"|over (its |the )?(storage|disk|size) limit|out of storage|insufficient (mailbox|user) (space|storage)"
    r"|(mailbox|user|account)\W+(\w+\W+){0,3}(out of|not enough) (space|storage)|postfach\w* ist voll",
    _I,
)
_SYSTEM_SPACE = re.compile(r"system (storage|resources|space)|disk space on the server|spool", _I)

# Against us, the sender or the content: never about the mailbox, whatever the code says.
_AGAINST_US = re.compile(
    r"\bsenders?\b|\babsender|mail ?from\b|return[- ]path|envelope[- ]from|\bfrom address"
    r"|\bspf\b|\bdkim\b|\bdmarc\b|\barc\b|sender ?id"
    r"|(black|block|deny|sperr)[- ]?list|\bblocked\b|\bblock(ed)? using\b|\brbls?\b|dnsbl|delist"
    r"|listed (in|on|by|at)\b|spamhaus|spamcop|sorbs|uceprotect|barracuda|abusix|senderscore|spamrats|nixspam"
    r"|\bbanned\b|gesperrt|\bspam\w*|\bjunk\b|unsolicited|reputation|phish|virus|malware|\babuse"
    r"|relay(?! recipient (table|map))|rcpthosts|not (a )?local|not (hosted|served) here"
    r"|\b(client|your|sending|connecting|remote) (host|ip|server|mail ?server|network|system)\b"
    r"|\bip[- ]?(address|adresse)?\b.{0,40}\b(reject|refus|deni|not allowed|black|block)"
    r"|\bptr\b|reverse[- ]?(dns|lookup)|\brdns\b|cannot find your|\bhelo\b|\behlo\b"
    r"|call(back|out)|\bcalled:|verification failed|verify failed"
    r"|too many|too (fast|much)|\brate\b|throttl|limit|flood|geo-?(block|ip)|country"
    r"|authenticat|\bauth\b|log ?in\b|starttls|encrypt|\btls\b|certificate|administrativ",
    _I,
)
# Words of refusal that say nothing by themselves: a policy, unless the sentence names the mailbox.
_REFUSED = re.compile(
    r"denied|reject|refus|prohibit|not (allowed|permitted|authori[sz]ed|accepted)|forbidden|\bpolic(y|ies)\b"
    r"|violat|unauthori[sz]ed|restricted"
    r"|abgelehnt|abgewiesen|verweigert|nicht (erlaubt|gestattet|zugelassen)",
    _I,
)
_NAMED = r"(user ?name|users?|recipients?|mailbox|account|address|e?-?mail address|person|inbox)"
_GERMAN = r"(empf(ä|ae)nger\w*|benutzer\w*|postfach|e?-?mail-?adresse|adresse|konto|teilnehmer)"
_NOT_THERE = (
    r"(unknown|not ?found|does ?n[o']?t ?exist|do(es)? not exist|not exist\w*|non-?existent|invalid"
    r"|is not (a )?(valid|known|active)|not known|unavailable|inactive|disabled|deactivated|no longer"
    r"|not (here|in our|present|listed)|has (moved|left)|undeliverable|not recogni[sz]ed|suspended|closed"
    r"|unbekannt|existiert nicht|nicht (gefunden|vorhanden|bekannt|existent|mehr|g(ü|ue)ltig)"
    r"|ung(ü|ue)ltig|gibt es (hier )?nicht|deaktiviert|geschlossen)"
)
_WORDS = r"\S*\s+(\S+\s+){0,6}?\W*"  # a few words between; the classes exclude each other: linear
_NO_SUCH = re.compile(
    rf"\b{_NAMED}{_WORDS}{_NOT_THERE}|\b{_GERMAN}{_WORDS}{_NOT_THERE}"
    r"|\b(no such|unknown|invalid|non-?existent|bad|wrong|no|not (a )?(valid|known)|not our) "
    rf"((local|virtual|destination|e?-?mail) )?{_NAMED}\b"
    rf"|\b(unbekannte[rns]?|kein(e|en)?|ung(ü|ue)ltige[rns]?) ([\w-]+ )?{_GERMAN}"
    r"|no mailbox|unroute?able (address|mail)|recip(ient)?notfound|nosuchuser|user_?unknown|no one here"
    r"|doesn't have an? .{1,40} account|can'?t find (a|that|this) (valid )?(user|recipient|mailbox)",
    _I,
)
# A bare 550 that speaks of something else than the mailbox: trouble behind the server; the domain, or us.
_TROUBLED = re.compile(
    r"\b(internal|system|server|local|database|ldap|look ?up|temporary|configuration)\s+(\w+\s+)?"
    r"(error|fail|problem|trouble)"
    r"|\b(could ?n[o']?t|can(no|')t) (\w+ )?(connect|contact|verify|reach|look ?up|check)|unable to (\w+ )?"
    r"(connect|contact|verify|reach|look ?up|check)|timed? ?out|try (it )?(again )?later|maintenance"
    r"|service (\w+ )?unavailable|\bsp(ä|ae)ter\b|wartung|technische"
    r"|\b(domain|customer|kunde|hosting|host|server|site|system|licen[sc]e)\W+(\w+\W+){0,2}"
    r"(suspended|disabled|deactivated|inactive|expired|closed|overload(ed)?|gesperrt|deaktiviert|abgelaufen)\b",
    _I,
)
_OF_OTHERS = re.compile(
    r"\b(no such|unknown|invalid|bogus) (host|domain|mx)\b|\b(host|domain) (is )?(unknown|not found)"
    r"|\bfor this (domain|host)|\bdynamic\b|\bdial-?up|\bproxy\b|\bbots?\b|\bforged\b|\bport \d"
    r"|\bsubmission\b",
    _I,
)
# What a bare 550 in other words must name at least, in some language; or it says the address itself.
_OF_A_MAILBOX = re.compile(
    rf"\b{_NAMED}|\b{_GERMAN}|\b(nobody|no one|anyone|by that name|spelling|alias|local[- ]part)\b"
    r"|\b(utilisateur|usager|destinata|adres|compte|bo(î|i)te|usuario|usu(á|a)rio|direcci(ó|o)n|cuenta|buz(ó|o)n"
    r"|endere(ç|c)o|utente|indirizzo|casella|gebruiker|ontvanger|u(ż|z)ytkownik|odbiorc|skrzynk)"
    r"|\b(inconnue?|desconocid[oa]|desconhecid[oa]|sconosciut[oa]|inesistente|onbekend|nieznany)\b",
    _I,
)
_MAILBOX_MISSING = re.compile(r"mailbox does not exist", _I)
_OUTLOOK = re.compile(r"recipient address rejected: access denied", _I)
_NOBODY_LEFT = re.compile(r"no valid|recipient", _I)


def speaks(stage: str, reply: Foreign) -> Speaks:
    """What `reply` to `stage` (a Stage, in any case of letters) speaks of."""
    stage, reply = stage.upper(), handed_on(reply)
    text = words(reply)
    if reply.code < 400:
        return Speaks.OK
    enhanced = reply.enhanced or _embedded(reply)
    if reply.code < 500:
        return _temporary(stage, reply.code, enhanced, text)
    if enhanced.startswith("5.6.") or enhanced == "5.3.4":
        return Speaks.OTHER_PERMANENT  # this mail is too large or not in a form that it takes
    if stage in (Stage.RCPT, Stage.DOT):
        return _permanent(stage, reply, enhanced, text)
    if stage == Stage.DATA and reply.code in (503, 554) and _NOBODY_LEFT.search(text):
        return Speaks.SYSTEM  # every recipient had been refused: the sequence is wrong, nobody is against us
    if stage in (Stage.CONTENT, Stage.DATA, Stage.RSET, Stage.STARTTLS):
        return Speaks.POLICY if _against_us(enhanced, text) else Speaks.OTHER_PERMANENT
    return Speaks.POLICY  # at the banner, EHLO or MAIL it is about us, whatever it says


def words(reply: Foreign) -> str:
    """Its text without addresses and links."""
    return _NO_WORDS.sub(" ", reply.text)


def handed_on(reply: Foreign) -> Foreign:
    """The reply that this one quotes, where it is of the same class."""
    match = _HANDED_ON.fullmatch(reply.text)
    if match is None or match[1][0] != str(reply.code)[0]:
        return reply
    return foreign(int(match[1]), match[2])


def _embedded(reply: Foreign) -> str:
    """The enhanced code of a text such as qmail's; "x" where the text contradicts the reply's class."""
    if match := _CODE_IN_TEXT.search(reply.text):
        return ".".join(match.groups()) if match[1] == str(reply.code)[0] else "x"
    return "x" if _OTHER_CLASS.match(reply.text) else ""


def _temporary(stage: str, code: int, enhanced: str, text: str) -> Speaks:
    if _GREYLISTED.search(text):
        return Speaks.GREYLIST
    if stage == Stage.RCPT and (code, enhanced) == (450, "4.3.2") and _POSTSCREEN.fullmatch(text):
        return Speaks.GREYLIST  # it passed the tests after the greeting: the next connection is let in
    full = _FULL.search(text) and not _SYSTEM_SPACE.search(text)
    if stage in (Stage.RCPT, Stage.DOT) and (
        enhanced == "4.2.2" or (full and not enhanced.startswith("4.3"))
    ):
        return Speaks.QUOTA
    if code == 421 or enhanced.startswith("4.3.") or stage in (Stage.BANNER, Stage.EHLO, Stage.MAIL):
        return Speaks.OVERLOADED
    asks_again = stage == Stage.RCPT and code in (450, 451) and _COME_AGAIN.search(text)
    if asks_again and enhanced in ("", "4.7.1", "4.7.0", "4.2.0", "4.0.0"):
        return Speaks.GREYLIST
    return Speaks.TEMPORARY


def _permanent(stage: str, reply: Foreign, enhanced: str, text: str) -> Speaks:
    """5yz to RCPT or after the final dot. `text`: the words of `reply`."""
    code = reply.code
    if enhanced == "5.4.1" and _OUTLOOK.search(text):
        return Speaks.NO_MAILBOX  # Exchange Online's way to say it (directory-based edge blocking)
    if _full(stage, code, enhanced, text):
        return Speaks.QUOTA
    if code == 530 or _against_us(enhanced, text):
        return Speaks.POLICY
    subject = enhanced.split(".")[1] if enhanced.count(".") == 2 else ""
    if (subject == "1" and code not in (501, 521, 556)) or enhanced == "5.2.1":
        return Speaks.SYSTEM if _TROUBLED.search(text) else Speaks.NO_MAILBOX
    if code in (500, 501, 502, 503, 504, 521, 556) or subject in ("3", "4", "5"):
        return Speaks.SYSTEM
    if stage == Stage.RCPT and code in (550, 551, 553) and enhanced in ("", "5.0.0"):
        if _TROUBLED.search(text):
            return Speaks.SYSTEM
        if _NO_SUCH.search(text):
            return Speaks.NO_MAILBOX
        if _REFUSED.search(text) or _OF_OTHERS.search(text):
            return Speaks.POLICY
        return Speaks.NO_MAILBOX if _names_a_mailbox(reply.text, text) else Speaks.OTHER_PERMANENT
    return Speaks.POLICY if _REFUSED.search(text) and not enhanced else Speaks.OTHER_PERMANENT


def _names_a_mailbox(text: str, words: str) -> bool:
    """`words`: those of `text`. Without a text: "mailbox unavailable", RFC 5321 section 4.2.3."""
    return not text or bool(_OF_A_MAILBOX.search(words)) or "@" in text


def _full(stage: str, code: int, enhanced: str, text: str) -> bool:
    if enhanced == "5.2.2" or (code == 552 and enhanced == "" and stage == Stage.RCPT):
        return True
    found = (
        _FULL.search(text) and not _SYSTEM_SPACE.search(text) and not enhanced.startswith(("5.3.", "5.7."))
    )
    return bool(found)


def _against_us(enhanced: str, text: str) -> bool:
    """A security or policy status, one about the sender's address (X.1.7, X.1.8), about the domain as such
    (X.1.2: it is not served there, as with relaying; Stalwart says so of a mailbox), or words to that end."""
    return (
        enhanced.startswith("5.7.")
        or enhanced in ("5.1.7", "5.1.8")
        or (enhanced == "5.1.2" and not _MAILBOX_MISSING.search(text))
        or bool(_AGAINST_US.search(text))
    )
