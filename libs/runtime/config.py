"""Configuration: one TOML file, environment variables override (BACKUPMX_SMTP__MAX_SIZE=...).

Every wrong key, type or value is one clear sentence (Wrong) and the command ends with exit code 2.
"""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from libs.mail.address import BadAddress, domain_name, mailbox
from libs.mail.records import Unverified
from libs.mail.settings import DAY_S, Defaults


class Wrong(Exception):  # noqa: N818
    """The configuration cannot be used; the message is one sentence for the person who wrote it."""


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


def _address(value: str) -> str:
    return str(ipaddress.ip_address(value))


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


class Endpoint(BaseModel):
    """`address` and `port` of a socket, written `127.0.0.1:25` or `[::1]:25`."""

    model_config = ConfigDict(frozen=True)
    address: str
    port: int = Field(ge=0, le=65535)

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        address, colon, port = value.rpartition(":")
        if not colon or not port.isdigit():
            raise ValueError(f"{value!r} is not of the form address:port")
        return {"address": str(ipaddress.ip_address(address.strip("[]"))), "port": int(port)}

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


DomainName = Annotated[str, AfterValidator(_domain)]
MailAddress = Annotated[str, AfterValidator(_mailbox)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
Seconds = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HostPart(_Part):
    """This host: the public name, and the published addresses that outgoing connections leave from."""

    name: DomainName
    ipv4: tuple[Address, ...] = ()
    ipv6: tuple[Address, ...] = ()


class InstallationPart(_Part):
    """`id`: of the installation record; `hosts`: the names of all our hosts; `operators`: who reads mail to
    our own names; `activation`: `dns`, or `trusted` (only with loopback listeners)."""

    id: str = Field(min_length=8)
    hosts: tuple[DomainName, ...] = Field(min_length=1)
    operators: MailAddress
    activation: Literal["dns", "trusted"] = "dns"


class LogPart(_Part):
    """`sqlite`: one file in the state directory. `kafka`: `bootstrap` servers; `replication` of the topics."""

    kind: Literal["sqlite", "kafka"] = "sqlite"
    bootstrap: tuple[str, ...] = ()
    replication: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _needs_bootstrap(self) -> "LogPart":
        if self.kind == "kafka" and not self.bootstrap:
            raise ValueError("kind 'kafka' needs `bootstrap` servers")
        return self


class SmtpPart(_Part):
    """What ingest listens on and how much it takes. Sizes in octets."""

    listen: tuple[Endpoint, ...] = (Endpoint(address="0.0.0.0", port=25),)  # noqa: S104
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_connections: int = Field(default=2000, ge=1)
    max_connections_per_client: int = Field(default=50, ge=1)
    max_errors: int = Field(default=10, ge=1)
    max_recipients: int = Field(default=100, ge=100)
    command_timeout_s: Seconds = 300.0
    data_timeout_s: Seconds = 600.0
    bare_newline: Literal["normalize", "reject"] = "normalize"

    @model_validator(mode="after")
    def _pair(self) -> "SmtpPart":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("`tls_certificate` and `tls_key` belong together")
        return self


class DialPart(_Part):
    """How other mail servers are dialled. `allow`: forbidden networks that may be dialled all the same."""

    port: int = Field(default=25, ge=1, le=65535)
    allow: tuple[Network, ...] = ()


class DnsPart(_Part):
    """The resolvers; empty: those of the system."""

    servers: tuple[Endpoint, ...] = ()
    timeout_s: Seconds = 5.0


class HealthPart(_Part):
    """Where /livez, /readyz and /metrics are served; port 0 picks one (it is logged)."""

    listen: Endpoint = Endpoint(address="127.0.0.1", port=9125)


class DefaultsPart(_Part):
    """Defaults for every relay domain."""

    lifetime_days: float = Field(default=30, gt=0, le=30)
    unverified: Unverified = Unverified.ACCEPT
    max_size: int = Field(default=50 * 2**20, ge=65536)
    max_connections: int = Field(default=5, ge=1)

    def settings(self) -> Defaults:
        return Defaults(self.lifetime_days * DAY_S, self.unverified, self.max_size, self.max_connections)


class TimingPart(_Part):
    """Deadlines and intervals in seconds."""

    rcpt_deadline_s: Seconds = 20.0
    verdict_deadline_s: Seconds = 20.0
    acknowledgement_s: Seconds = 30.0
    probe_s: Seconds = 15.0
    probe_late_s: Seconds = 60.0
    settle_s: float = Field(default=15.0, ge=0)  # a gained partition starts attempts after this
    pending_check_s: Seconds = 60.0


class Config(BaseSettings):
    """The whole configuration of a process."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="BACKUPMX_", env_nested_delimiter="__"
    )
    installation: InstallationPart
    host: HostPart
    state_directory: Path
    log: LogPart = LogPart()
    smtp: SmtpPart = SmtpPart()
    dial: DialPart = DialPart()
    dns: DnsPart = DnsPart()
    health: HealthPart = HealthPart()
    defaults: DefaultsPart = DefaultsPart()
    timing: TimingPart = TimingPart()

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **sources: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then the file (given as keyword arguments)."""
        return sources["env_settings"], init_settings

    @model_validator(mode="after")
    def _trusted_is_local(self) -> "Config":
        local = all(ipaddress.ip_address(at.address).is_loopback for at in self.smtp.listen)
        if self.installation.activation == "trusted" and not local:
            raise ValueError("activation 'trusted' is allowed with loopback listeners only")
        if self.host.name not in self.installation.hosts:
            raise ValueError(f"host.name {self.host.name!r} is not one of installation.hosts")
        return self


def load(path: Path) -> Config:
    """The configuration in `path` with the environment over it. Raises Wrong with one sentence."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Wrong(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Wrong(f"{path}: is not TOML: {error}") from error
    try:
        return Config(**data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        message = first["msg"].removeprefix("Value error, ")
        raise Wrong(f"{path}: {where}: {message}") from error
