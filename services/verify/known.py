"""What verify knows: full replicas of `domains`, `recipients` and `primaries`."""

from typing import Any

from libs import topics
from libs.log.contract import Record
from libs.log.table import Table
from libs.mail.codec import decode
from libs.mail.knowledge import PrimaryFacts, PrimaryState, RecipientRecord, RecipientStatus, RecipientTry
from libs.mail.records import Domain, Enforce
from libs.mail.remembered import counting, era_of, pack, unpack
from libs.mail.settings import DomainSettings, complete
from libs.runtime.deps import Deps
from services.verify import learning
from services.verify.index import Index
from services.verify.warming import Warming

_WRITTEN_S = 5.0  # what the replica has not shown by then was not stored


class Known:
    """`run()` each of `tables`, and wait for caught_up() before the first question. `overruled`: keys under
    which the log ends with a record that does not count (remembered.counting); `braked`: domains whose
    callout brake is pulled."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        defaults = deps.config.defaults.settings()
        self.index, self.warming = Index(), Warming()
        self.overruled: set[bytes] = set()
        self.braked: set[str] = set()
        self._shown: dict[str, str] = {}  # the state of a primary in the metrics
        self._written: dict[bytes, tuple[bytes | None, float]] = {}  # and when, monotonic

        def domain(record: Record) -> DomainSettings | None:
            if record.value is None or not topics.is_relay_domain(record.key):
                return None
            return complete(defaults, decode(record.value, Domain))

        self.domains: Table[DomainSettings] = deps.table(
            "domains", domain, lambda record: self._show(record.key.decode("ascii", "replace"))
        )
        self.recipients: Table[bytes] = deps.table("recipients", self._recipient, self._folded)
        self.primaries: Table[PrimaryState] = deps.table("primaries", _primary)

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        return self.domains, self.recipients, self.primaries

    async def caught_up(self) -> None:
        for table in self.tables:
            await table.caught_up()

    def recipient(self, key: bytes, mailbox: str) -> learning.Known:
        """Status and last try; `key`: of the mailbox in normal form."""
        status, tried = self.newest(key), self.newest(b"try:" + key)
        return learning.Known(
            mailbox,
            status if isinstance(status, RecipientStatus) else None,
            tried if isinstance(tried, RecipientTry) else None,
        )

    def facts(self, domain: str) -> PrimaryFacts | None:
        found = self.newest(b"@" + domain.encode())
        return found if isinstance(found, PrimaryFacts) else None

    def remember(self, key: bytes, record: RecipientRecord | None) -> None:
        """What was just written under `key` (None: a tombstone) counts at once, until the replica has it."""
        self._written[key] = None if record is None else pack(key, record), self._deps.clock.mono()

    def newest(self, key: bytes) -> RecipientRecord | None:
        """What is known under `key`, in the era of its domain."""
        kept, settings = self.kept(key), self._settings_of(key)
        if kept is None or (settings is not None and era_of(kept) != settings.era):
            return None
        return unpack(key, kept)

    def outlived(self, key: bytes) -> bool:
        """Is what is kept under `key` of a domain that was removed before it was added again?"""
        kept, settings = self.kept(key), self._settings_of(key)
        return kept is not None and settings is not None and era_of(kept) < settings.era

    def kept(self, key: bytes) -> bytes | None:
        """As remembered.pack() has it, of whatever era."""
        kept = self.recipients.get(key)
        if (written := self._written.get(key)) is not None:
            if self._deps.clock.mono() - written[1] < _WRITTEN_S:
                kept = written[0]
            else:
                del self._written[key]  # it was not stored, or another owner wrote since
        return kept

    def era(self, domain: str) -> int | None:
        """None where we have no such domain."""
        settings = self.settings(domain)
        return None if settings is None else settings.era

    def _settings_of(self, key: bytes) -> DomainSettings | None:
        return self.domains.get(key.rpartition(b"@")[2])

    def settings(self, domain: str) -> DomainSettings | None:
        return self.domains.get(domain.encode())

    def enforced(self, domain: str) -> Enforce:
        """What the domain wants refused; nothing, unless that is known for sure (rule 7)."""
        settings = self.settings(domain)
        if settings is None or not self.domains.fresh(topics.partition_of(domain, self._deps.partitions)):
            return Enforce.OFF
        return settings.enforce

    def primary(self, domain: str) -> PrimaryState | None:
        return self.primaries.get(domain.encode())

    def away(self, domain: str) -> bool:
        """Is its primary known to be down or deferring?"""
        primary = self.primary(domain)
        return primary is not None and primary.away

    def control(self, key: bytes) -> str:
        """Another recipient of the same domain that is known deliverable, "" for none."""
        domain = key.rpartition(b"@")[2]
        doubts = self.doubts(domain)
        for other in self.index.controls(domain):
            status = self.newest(other)
            if other != key and other not in doubts and isinstance(status, RecipientStatus):
                return status.mailbox
        return ""

    def doubts(self, domain: bytes) -> dict[bytes, float]:
        """Who is contradicted, and since when: as Index.doubts(), in the era of the domain."""
        doubts = self.index.doubts(domain)
        return {key: since for key, since in doubts.items() if self.newest(b"try:" + key) is not None}

    def _recipient(self, record: Record) -> bytes | None:
        if record.value is None:
            return None
        old = self.recipients.get(record.key)
        kept = counting(record.key, old, record.value)
        if kept is old:
            self.overruled.add(record.key)
        else:
            self.overruled.discard(record.key)
        return kept

    def _folded(self, record: Record) -> None:
        """Forget what was written once the replica has it."""
        kept = self.recipients.get(record.key)
        if (written := self._written.get(record.key)) and written[0] == kept:
            del self._written[record.key]
        if record.key.startswith(b"@"):
            self._show(record.key[1:].decode("ascii", "replace"))
            return
        found = None if kept is None else unpack(record.key, kept)
        self.index.folded(record.key, found)
        if record.key.startswith(b"try:"):
            self.warming.fold(record.key[4:], found if isinstance(found, RecipientTry) else None)

    def _show(self, domain: str) -> None:
        """In the metrics: the state of each primary whose domain we serve, and of no other. Who is braked."""
        gauge, brake = self._deps.metrics.primary_callouts, self._deps.metrics.callout_brake
        facts = self.facts(domain)
        state = facts.callouts.value if facts is not None and self.settings(domain) is not None else ""
        braked = facts is not None and facts.braked
        (self.braked.add if state and braked else self.braked.discard)(domain)
        before = self._shown.pop(domain, "")
        if before:
            gauge.remove(domain, before)
            brake.remove(domain)
        if state:
            gauge.labels(domain, state).set(1)
            brake.labels(domain).set(braked)
            self._shown[domain] = state


def _primary(record: Record) -> PrimaryState | None:
    return None if record.value is None else decode(record.value, PrimaryState)
