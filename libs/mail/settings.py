"""Installation defaults + a domain's own settings -> one complete DomainSettings, with no None below it."""

from msgspec import Struct

from libs.mail.records import Admission, Domain, Enforce, Language, Unverified

DAY_S = 86_400.0


class Defaults(Struct, frozen=True):
    """The installation's defaults for every domain. Durations in seconds, sizes in octets."""

    lifetime_s: float = 30 * DAY_S
    unverified: Unverified = Unverified.ACCEPT
    max_size: int = 50 * 2**20
    max_connections: int = 5
    max_rate: int = 0
    max_waiting: int = 1_000_000
    max_waiting_size: int = 20 * 2**30
    admission: Admission = Admission.ALWAYS
    enforce: Enforce = Enforce.OFF
    language: Language = Language.EN
    parked_s: float = 7 * DAY_S


class DomainSettings(Struct, frozen=True):
    """All that may be asked of a relay domain. `active`: its DNS named us; `leaving`: it is
    to be removed; `contact`: "" for none;
    `max_waiting`, `max_waiting_size`: mails and octets that may wait for its primary; `max_rate`: mails a
    minute that it is handed, 0 for any; `primary_host`: where it is, `host:port`, "" for where its MX records
    say; `tls_name`: the name that its certificate must be for, "" for none; `xclient`: it is told whose mail
    it gets; `era`: as in Domain; `language`: of notices to its senders and its contact; `parked_s`: how long
    parked mail is kept; `contact_secret`: signs what is posted to a contact that is a URL."""

    domain: str
    active: bool
    leaving: bool
    suspended: bool
    held: bool
    lifetime_s: float
    unverified: Unverified
    contact: str
    max_size: int
    max_connections: int
    max_rate: int
    max_waiting: int
    max_waiting_size: int
    admission: Admission
    enforce: Enforce
    era: int
    primary_host: str
    tls_name: str
    xclient: bool
    language: Language
    parked_s: float
    contact_secret: str


def complete(defaults: Defaults, domain: Domain) -> DomainSettings:
    """The settings in force for `domain`; a lifetime over 30 d is cut to 30 d."""
    own = domain.overrides
    lifetime_s = defaults.lifetime_s if own.lifetime_s is None else own.lifetime_s
    return DomainSettings(
        domain=domain.domain,
        active=domain.active_since > 0,
        leaving=domain.leaving > 0,
        suspended=domain.suspended,
        held=domain.held,
        lifetime_s=min(lifetime_s, 30 * DAY_S),
        unverified=defaults.unverified if own.unverified is None else own.unverified,
        contact="" if own.contact is None else own.contact,
        max_size=defaults.max_size if own.max_size is None else own.max_size,
        max_connections=defaults.max_connections if own.max_connections is None else own.max_connections,
        max_rate=defaults.max_rate if own.max_rate is None else own.max_rate,
        max_waiting=defaults.max_waiting if own.max_waiting is None else own.max_waiting,
        max_waiting_size=defaults.max_waiting_size if own.max_waiting_size is None else own.max_waiting_size,
        admission=defaults.admission if own.admission is None else own.admission,
        enforce=defaults.enforce if own.enforce is None else own.enforce,
        era=domain.era,
        primary_host=own.primary_host or "",
        tls_name=own.tls_name or "",
        xclient=bool(own.xclient),
        language=defaults.language if own.language is None else own.language,
        parked_s=defaults.parked_s,
        contact_secret="" if own.contact_secret is None else own.contact_secret,
    )
