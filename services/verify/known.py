"""What verify knows: full replicas of `domains`, `recipients` and `primaries`."""

from typing import Any

from libs import topics
from libs.log.contract import Record
from libs.log.table import Table
from libs.mail.records import (
    OPERATOR,
    Domain,
    PrimaryFacts,
    PrimaryState,
    RecipientRecord,
    RecipientStatus,
    RecipientTry,
    Status,
    decode,
    decode_recipient,
)
from libs.mail.settings import DomainSettings, complete
from libs.runtime.deps import Deps
from services.verify import learning
from services.verify.warming import Warming

_WRITTEN_S = 5.0  # what the replica has not shown by then was not stored
_CONTROLS = 32  # deliverable recipients remembered a domain: some of them are left when others go


class Known:
    """`run()` each of `tables`, and wait for caught_up() before the first question."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        defaults = deps.config.defaults.settings()
        self._controls: dict[bytes, dict[bytes, None]] = {}
        self.warming = Warming()
        self._shown: dict[str, str] = {}  # the state of a primary in the metrics
        self._written: dict[bytes, tuple[RecipientRecord | None, float]] = {}  # and when, monotonic

        def domain(record: Record) -> DomainSettings | None:
            if record.value is None or not topics.is_relay_domain(record.key):
                return None
            return complete(defaults, decode(record.value, Domain))

        self.domains: Table[DomainSettings] = deps.table(
            "domains", domain, lambda record: self._show(record.key.decode("ascii", "replace"))
        )
        self.recipients: Table[RecipientRecord] = deps.table("recipients", _recipient, self._index)
        self.primaries: Table[PrimaryState] = deps.table("primaries", _primary)

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        return self.domains, self.recipients, self.primaries

    async def caught_up(self) -> None:
        for table in self.tables:
            await table.caught_up()

    def recipient(self, key: bytes, mailbox: str) -> learning.Known:
        """Status and last try; `key`: of the mailbox in normal form."""
        status, tried = self._newest(key), self._newest(b"try:" + key)
        return learning.Known(
            mailbox,
            status if isinstance(status, RecipientStatus) else None,
            tried if isinstance(tried, RecipientTry) else None,
        )

    def facts(self, domain: str) -> PrimaryFacts | None:
        found = self._newest(b"@" + domain.encode())
        return found if isinstance(found, PrimaryFacts) else None

    def remember(self, key: bytes, record: RecipientRecord | None) -> None:
        """What was just written under `key` counts at once, until the replica has it."""
        self._written[key] = record, self._deps.clock.mono()

    def _newest(self, key: bytes) -> RecipientRecord | None:
        if (written := self._written.get(key)) is not None:
            record, at = written
            if self._deps.clock.mono() - at < _WRITTEN_S:
                return record
            del self._written[key]  # it was not stored, or another owner wrote since
        return self.recipients.get(key)

    def settings(self, domain: str) -> DomainSettings | None:
        return self.domains.get(domain.encode())

    def primary(self, domain: str) -> PrimaryState | None:
        return self.primaries.get(domain.encode())

    def control(self, key: bytes) -> str:
        """Another recipient of the same domain that is known deliverable, "" for none."""
        for other in self._controls.get(key.rpartition(b"@")[2], ()):
            found = self.recipients.get(other)
            if other != key and isinstance(found, RecipientStatus) and not self._doubted(other):
                return found.mailbox
        return ""

    def _doubted(self, key: bytes) -> bool:
        tried = self.recipients.get(b"try:" + key)
        return isinstance(tried, RecipientTry) and tried.against_since > 0

    def _index(self, record: Record) -> None:
        """Keep some deliverable recipients of each domain at hand; forget what the replica has now."""
        if (written := self._written.get(record.key)) and written[0] == self.recipients.get(record.key):
            del self._written[record.key]
        if record.key.startswith(b"try:"):
            tried = self.recipients.get(record.key)
            self.warming.fold(record.key[4:], tried if isinstance(tried, RecipientTry) else None)
        if record.key.startswith(b"@"):
            self._show(record.key[1:].decode("ascii", "replace"))
        if record.key.startswith((b"try:", b"@")):
            return
        domain = record.key.rpartition(b"@")[2]
        status = self.recipients.get(record.key)
        controls = self._controls.setdefault(domain, {})
        if _confirmed(status):
            if len(controls) < _CONTROLS:
                controls[record.key] = None
        else:
            controls.pop(record.key, None)
            if not controls:
                del self._controls[domain]

    def _show(self, domain: str) -> None:
        """In the metrics: the state of each primary whose domain we serve, and of no other."""
        gauge, facts = self._deps.metrics.primary_callouts, self.facts(domain)
        state = facts.callouts.value if facts is not None and self.settings(domain) is not None else ""
        before = self._shown.pop(domain, "")
        if before:
            gauge.remove(domain, before)
        if state:
            gauge.labels(domain, state).set(1)
            self._shown[domain] = state


def _confirmed(found: RecipientRecord | None) -> bool:
    """Did the primary itself say so? The operator's word is no witness against it."""
    return (
        isinstance(found, RecipientStatus) and found.status is Status.DELIVERABLE and found.source != OPERATOR
    )


def _recipient(record: Record) -> RecipientRecord | None:
    return None if record.value is None else decode_recipient(record.value)


def _primary(record: Record) -> PrimaryState | None:
    return None if record.value is None else decode(record.value, PrimaryState)
