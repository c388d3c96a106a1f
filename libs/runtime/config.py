"""Every setting: its table, its type, its default, and which settings fit together.

How they are read is in config_file.py, how a mistake is told in mistake.py.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from libs.mail.address import BadAddress, domain_name, mailbox
from libs.mail.hints import Us
from libs.mail.records import Admission, Enforce, Language, Unverified
from libs.mail.settings import DAY_S, Defaults


def _domain(value: str) -> str:
    try:
        return domain_name(value)
    except BadAddress as error:
        raise ValueError(f"{value!r} is no host name") from error


def _mailbox(value: str) -> str:
    try:
        return str(mailbox(value))
    except BadAddress as error:
        raise ValueError(f"{value!r} is no mail address") from error


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


def _some(value: str) -> str:
    """A network that is not everybody."""
    network = ipaddress.ip_network(value)
    if not network.prefixlen:
        raise ValueError(f"{value!r} would let everybody claim any address")
    return str(network)


def _ipv4(value: str) -> str:
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no IPv4 address") from error


def _ipv6(value: str) -> str:
    try:
        return str(ipaddress.IPv6Address(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no IPv6 address") from error


_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_ENDPOINT = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]):([0-9]{1,5})")


def _file(value: Path) -> Path:
    if "\0" in str(value):  # no call of the system takes it
        raise ValueError(f"{str(value)!r} is no path of a file")
    return value


def _server(value: str) -> str:
    match = _SERVER.fullmatch(value)
    if match is None or not 0 < int(match[1]) < 65536:
        raise ValueError(f"{value!r} is not of the form host:port")
    return value


class Endpoint(BaseModel):
    """`address` and `port` of a socket, written `127.0.0.1:25` or `[::1]:25`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    address: str
    port: int = Field(ge=0, le=65535)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return value
        match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{value!r} is not of the form address:port, such as 127.0.0.1:25 or [::1]:25")
        return {"address": match[1] or match[2], "port": int(match[3])}

    @model_validator(mode="after")
    def _is_address(self) -> "Endpoint":
        ipaddress.ip_address(self.address)
        return self

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


DomainName = Annotated[str, AfterValidator(_domain)]
MailAddress = Annotated[str, AfterValidator(_mailbox)]
IPv4 = Annotated[str, AfterValidator(_ipv4)]
IPv6 = Annotated[str, AfterValidator(_ipv6)]
Network = Annotated[str, AfterValidator(_network)]
SomeNetwork = Annotated[str, AfterValidator(_some)]
Server = Annotated[str, AfterValidator(_server)]
File = Annotated[Path, AfterValidator(_file)]
# Strict: "25" and true are no numbers, and neither inf nor nan is a duration.
Count = Annotated[int, Field(strict=True, ge=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def is_part(annotation: Any) -> bool:
    """Is it the type of a table of settings, not of one setting?"""
    return isinstance(annotation, type) and issubclass(annotation, _Part)


class HostPart(_Part):
    """This host: the public name, and the published addresses that outgoing connections leave from."""

    name: DomainName
    ipv4: tuple[IPv4, ...] = ()
    ipv6: tuple[IPv6, ...] = ()


class InstallationPart(_Part):
    """`id`: of the installation record; `hosts`: the names of all our hosts; `operators`: who reads mail to
    our own names; `activation`: `dns`, or `trusted` (only with loopback listeners)."""

    id: str = Field(min_length=8, pattern=r"^[!-~]+$")
    hosts: tuple[DomainName, ...] = Field(min_length=1)
    operators: MailAddress
    activation: Literal["dns", "trusted"] = "dns"

    @model_validator(mode="after")
    def _operators_are_elsewhere(self) -> "InstallationPart":
        domain = mailbox(self.operators).domain
        if domain in self.hosts or domain.startswith("["):
            raise ValueError(
                f"operators {self.operators!r} must be in a domain with MX records, not at a host of ours"
            )
        return self


class LogPart(_Part):
    """`sqlite`: one file in the state directory. `kafka`: `bootstrap` servers, `replication` factor, `prefix`
    of the names of topics and groups (for a cluster shared with others). `max_disk_share`: of the fullest
    disk that the log has, above which no new mail is taken (rule 13)."""

    kind: Literal["sqlite", "kafka"] = "sqlite"
    bootstrap: tuple[Server, ...] = ()
    replication: Count = 3
    prefix: str = Field(default="", max_length=100, pattern=r"^[A-Za-z0-9._-]*$")
    max_disk_share: Number = Field(default=0.8, gt=0, le=0.95)

    @model_validator(mode="after")
    def _needs_bootstrap(self) -> "LogPart":
        if self.kind == "kafka" and not self.bootstrap:
            raise ValueError("kind 'kafka' needs `bootstrap` servers")
        return self


class SmtpPart(_Part):
    """What ingest listens on and how much it takes. Sizes in octets, rates a second. `proxy_listen`: where a
    PROXY header comes first; `proxy_networks`: who may connect there; `exempt_networks`: what the limits of
    clients do not hold for; `trusted_relays`: hosts that hand over mail which they received from others, and
    may say from whom. A client is an IPv4 address or an IPv6 /64; each process counts by itself."""

    proxy_listen: tuple[Endpoint, ...] = ()
    proxy_networks: tuple[SomeNetwork, ...] = ()
    listen: tuple[Endpoint, ...] = (Endpoint(address="0.0.0.0", port=25),)
    tls_certificate: File | None = None
    tls_key: File | None = None
    processes: Count = 1
    max_connections: Count = 2000
    max_connections_per_client: Count = 50
    max_connection_rate: Count = 500
    max_connection_rate_per_client: Count = 50
    max_unknown_per_client: Count = 100
    max_unverified_per_client: Count = 20
    max_unverified_per_domain: Count = 500
    exempt_networks: tuple[Network, ...] = ("127.0.0.0/8", "::1/128")
    trusted_relays: tuple[SomeNetwork, ...] = ()
    max_errors: Count = 10
    max_recipients: int = Field(default=100, strict=True, ge=100)  # RFC 5321 section 4.5.3.1.8
    proxy_timeout_s: Seconds = 5.0
    drain_s: Number = Field(default=10.0, ge=0)
    drain_data_s: Number = Field(default=60.0, ge=0)
    command_timeout_s: Seconds = 300.0
    data_timeout_s: Seconds = 300.0
    min_data_rate: int = Field(default=500, strict=True, ge=0)
    session_time_s: Seconds = 3600.0
    bare_newline: Literal["normalize", "reject"] = "normalize"

    @field_validator("listen")
    @classmethod
    def _somewhere(cls, listen: tuple[Endpoint, ...], others: ValidationInfo) -> tuple[Endpoint, ...]:
        proxied = others.data.get("proxy_listen", ())
        if not listen and not proxied:
            raise ValueError("must not be empty")
        # SO_REUSEPORT would let one process have both sockets, and the kernel toss a coin.
        every = [at for at in (*listen, *proxied) if at.port]
        if twice := next((at for at in every if every.count(at) > 1), None):
            raise ValueError(f"{twice} is named twice in smtp.listen and smtp.proxy_listen")
        return listen

    @model_validator(mode="after")
    def _proxies(self) -> "SmtpPart":
        if bool(self.proxy_listen) != bool(self.proxy_networks):
            raise ValueError("`proxy_listen` and `proxy_networks` (who may connect there) belong together")
        return self

    @model_validator(mode="after")
    def _pair(self) -> "SmtpPart":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("`tls_certificate` and `tls_key` belong together")
        return self


class DialPart(_Part):
    """How other mail servers are dialled. `allow`: forbidden networks that may be dialled all the same.
    `mta_sts`: policies (RFC 8461) are fetched, over HTTPS at `policy_port`, and honoured. `dane`: TLSA
    records are, where a validating resolver on loopback vouches for them. `authorities`: who may sign the
    certificates that are asked for by name, a PEM file; none: those of the system. The time-outs are those of
    RFC 5321 section 4.5.3.2, `block_timeout_s` for 64 KiB of content; `greeting_s`: no longer are
    banner and EHLO waited for, unless the server is known to be slow."""

    port: int = Field(default=25, strict=True, ge=1, le=65535)
    allow: tuple[Network, ...] = ()
    mta_sts: bool = True
    policy_port: int = Field(default=443, strict=True, ge=1, le=65535)
    dane: bool = False
    authorities: File | None = None
    greeting_s: Seconds = 30.0
    connect_timeout_s: Seconds = 10.0
    banner_timeout_s: Seconds = 300.0
    ehlo_timeout_s: Seconds = 300.0
    starttls_timeout_s: Seconds = 60.0
    mail_timeout_s: Seconds = 300.0
    rcpt_timeout_s: Seconds = 300.0
    data_timeout_s: Seconds = 120.0
    block_timeout_s: Seconds = 180.0
    dot_timeout_s: Seconds = 600.0


class DnsPart(_Part):
    """The resolvers; empty: those of the system. `timeout_s`: what one question may take in all."""

    servers: tuple[Endpoint, ...] = ()
    timeout_s: Seconds = 5.0


class AuthPart(_Part):
    """What is written of authentication. `received_spf`: a Received-SPF field, besides
    Authentication-Results."""

    received_spf: bool = False


class ArcPart(_Part):
    """`trusted`: domains whose seals are believed; the others: who seals, with which key, nobody without."""

    trusted: tuple[DomainName, ...] = ()
    domain: DomainName | None = None
    selector: DomainName | None = None
    key: File | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> "ArcPart":
        if len({part is None for part in (self.domain, self.selector, self.key)}) > 1:
            raise ValueError("`domain`, `selector` and `key` belong together")
        return self


class HealthPart(_Part):
    """Where /livez, /readyz and /metrics are served; port 0 picks one (it is logged)."""

    listen: Endpoint = Endpoint(address="127.0.0.1", port=9125)


class DefaultsPart(_Part):
    """Defaults for every relay domain."""

    lifetime_days: Number = Field(default=30.0, gt=0, le=30)
    unverified: Unverified = Unverified.ACCEPT
    max_size: int = Field(default=50 * 2**20, strict=True, ge=65536)
    max_connections: Count = 5
    max_rate: int = Field(default=0, strict=True, ge=0)
    max_waiting: Count = 1_000_000
    max_waiting_size: Count = 20 * 2**30
    admission: Admission = Admission.ALWAYS
    enforce: Enforce = Enforce.OFF
    language: Language = Language.EN
    parked_days: Number = Field(default=7.0, gt=0, le=30)  # parked mail is kept so long

    def settings(self) -> Defaults:
        return Defaults(
            lifetime_s=self.lifetime_days * DAY_S,
            unverified=self.unverified,
            max_size=self.max_size,
            max_connections=self.max_connections,
            max_rate=self.max_rate,
            max_waiting=self.max_waiting,
            max_waiting_size=self.max_waiting_size,
            admission=self.admission,
            enforce=self.enforce,
            language=self.language,
            parked_s=self.parked_days * DAY_S,
        )


class NoticesPart(_Part):
    """Notices to the contacts of domains. `down_after_s`: a primary that is away, or refuses us, is told of
    after so long; `back_after_s`: that it is back, likewise; `expiring_days`: before the oldest mail expires
    (a third of its lifetime at most); `most_a_day`: for one domain, whatever happens; `most_to_operators`:
    of all domains without a contact, within 24 h."""

    down_after_s: Seconds = 1800.0
    back_after_s: Seconds = 600.0
    expiring_days: Number = Field(default=3.0, gt=0)
    most_a_day: Count = 6
    most_to_operators: int = Field(default=20, strict=True, ge=0)


class TimingPart(_Part):
    """Deadlines and intervals in seconds. `examine_s`: between two examinations of a domain; 0: only when
    asked."""

    rcpt_deadline_s: Seconds = 20.0
    verdict_deadline_s: Seconds = 20.0
    acknowledgement_s: Seconds = 30.0
    probe_s: Seconds = 15.0
    probe_late_s: Seconds = 60.0
    settle_s: Number = Field(default=15.0, ge=0)  # a gained partition starts attempts after this
    pending_check_s: Seconds = 60.0
    examine_s: Number = Field(default=14_400.0, ge=0)
    leave_s: Number = Field(default=60.0, ge=0)  # a domain that leaves is removed no sooner


class Config(_Part):
    """The whole configuration of a process."""

    installation: InstallationPart
    host: HostPart
    state_directory: File
    log: LogPart = LogPart()
    smtp: SmtpPart = SmtpPart()
    dial: DialPart = DialPart()
    dns: DnsPart = DnsPart()
    auth: AuthPart = AuthPart()
    arc: ArcPart = ArcPart()
    health: HealthPart = HealthPart()
    defaults: DefaultsPart = DefaultsPart()
    timing: TimingPart = TimingPart()
    notices: NoticesPart = NoticesPart()

    @property
    def us(self) -> Us:
        """As a primary's owner has to know us."""
        others = tuple(name for name in self.installation.hosts if name != self.host.name)
        return Us((*self.host.ipv4, *self.host.ipv6), self.host.name, others)

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        listeners = (*self.smtp.listen, *self.smtp.proxy_listen)
        local = all(ipaddress.ip_address(at.address).is_loopback for at in listeners)
        if self.installation.activation == "trusted" and not local:
            raise ValueError("installation.activation 'trusted' is allowed with loopback listeners only")
        near = [ipaddress.ip_address(at.address).is_loopback for at in self.dns.servers]
        if self.dial.dane and not (near and all(near)):
            raise ValueError("dial.dane needs a validating resolver: dns.servers on loopback, and no others")
        if self.smtp.processes > 1 and self.log.kind != "kafka":
            raise ValueError("smtp.processes: several processes need log.kind 'kafka'")
        if self.smtp.processes > 1 and not all(at.port for at in listeners):
            raise ValueError("smtp.processes: several processes cannot share port 0")
        if self.host.name not in self.installation.hosts:
            raise ValueError(f"host.name {self.host.name!r} is not one of installation.hosts")
        return self
