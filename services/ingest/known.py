"""What ingest knows: full replicas of `domains`, `recipients` and `primaries`, and the facts in them."""

import asyncio
import math

from libs import topics
from libs.log.contract import Record
from libs.log.table import Table
from libs.mail import replies
from libs.mail.address import Mailbox, mailbox
from libs.mail.codec import Undecodable, decode
from libs.mail.knowledge import PrimaryFacts, PrimaryState, RecipientRecord, RecipientStatus, RecipientTry
from libs.mail.records import Access, Admission, Domain, Installation
from libs.mail.remembered import counting, unpack
from libs.mail.reply import Reply
from libs.mail.settings import DomainSettings, complete
from libs.runtime.deps import Deps
from services.ingest import fallback
from services.ingest.access import NO_RULES, Listed, Rules
from services.ingest.facts import Facts, OurNames
from services.ingest.limits import Load


class Known:
    """Facts from the tables. `run` each of `tables`, and wait for `caught_up` before the first question.
    `fallback` is set once any domain has that admission: only then is remembered when primaries spoke."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self.names = our_names(deps)
        defaults = deps.config.defaults.settings()

        self._listed: dict[bytes, Listed] = {}
        self._rules: Rules | None = NO_RULES  # None: to be made anew

        def domain(record: Record) -> DomainSettings | Installation | None:
            assert record.value is not None
            if record.key == topics.INSTALLATION_KEY:
                return decode(record.value, Installation)
            if not topics.is_relay_domain(record.key):
                return None
            return complete(defaults, decode(record.value, Domain))

        self.fallback = asyncio.Event()
        self._restored = False
        self._heard: dict[bytes, float] = {}
        self._told = [0] * deps.partitions
        self._largest: int | None = None  # None: to be looked for anew
        self.domains: Table[DomainSettings | Installation] = deps.table("domains", domain, self._domain)
        self.recipients: Table[bytes] = deps.table("recipients", self._recipient, self._heard_of)
        self.primaries: Table[PrimaryState] = deps.table("primaries", _primary)
        deps.metrics.remembered.set_function(lambda: len(self.recipients.values))

    @property
    def tables(
        self,
    ) -> "tuple[Table[DomainSettings | Installation], Table[bytes], Table[PrimaryState]]":
        return self.domains, self.recipients, self.primaries

    async def caught_up(self) -> None:
        for table in self.tables:
            await table.caught_up()
        self._restored = True

    def whole(self, partition: int) -> bool:
        """Rule 7: `domains` is that of this installation, complete, and fresh where it matters."""
        installation = self.installation
        return (
            installation is not None
            and len(self.domains.values) > installation.count  # the installation record is one of them
            and self.domains.fresh(partition)
            and self.domains.fresh(0)
        )

    @property
    def installation(self) -> Installation | None:
        """The record of this installation; None where the log has none, or that of another."""
        found = self.domains.get(topics.INSTALLATION_KEY)
        if (
            isinstance(found, Installation)
            and found.id == self._deps.config.installation.id
            and found.partitions == self._deps.partitions
        ):
            return found
        return None

    def rules(self) -> Rules:
        """Whom the operator blocked or allowed. Nobody, unless they are those of this installation and fresh:
        a block is a permanent no (rule 7)."""
        if self.installation is None or not self.domains.fresh(0):
            return NO_RULES
        now = self._deps.events.log_time() or 0.0  # unknown: nothing is over yet
        if self._rules is None or now >= self._rules.ends:
            self._rules = Rules(self._listed.values(), now)
        return self._rules

    def _list(self, record: Record) -> None:
        """Keep what is no domain, and no part of their number, apart."""
        self._rules = None
        if record.value is None:
            self._listed.pop(record.key, None)
            return
        try:
            access = decode(record.value, Access)
        except Undecodable:
            self._deps.quarantined(record)
            return
        ends = record.time + access.lasts_s if access.lasts_s else math.inf
        self._listed[record.key] = Listed(access, ends)

    def facts(self, to: Mailbox, load: Load) -> Facts:
        domain = to.domain.encode()
        # The domains of another installation's log are not ours to serve: 451 for all of them.
        settings = self.domains.get(domain) if self.installation is not None else None
        partition = self.partition(to.domain)
        whole = self.whole(partition)
        if not isinstance(settings, DomainSettings):
            return Facts(self.names, whole, None, load=load)
        key = to.key.encode()
        names = key, b"try:" + key, b"@" + domain
        status, tried, learnt = (self._of_recipients(name, settings.era) for name in names)
        return Facts(
            self.names,
            whole,
            settings=settings,
            fresh=whole and self.recipients.fresh(partition),
            status=status if isinstance(status, RecipientStatus) else None,
            tried=tried if isinstance(tried, RecipientTry) else None,
            primary=self.primaries.get(domain),
            learnt=learnt if isinstance(learnt, PrimaryFacts) else None,
            load=load,
            heard=self._heard.get(domain, 0.0),
        )

    def _domain(self, record: Record) -> None:
        self._largest = None
        if record.key.startswith(topics.ACCESS_KEY):
            self._list(record)
        settings = self.domains.get(record.key)
        if not isinstance(settings, DomainSettings):
            self._deps.metrics.accepted.forget(record.key.decode())
            return
        self._deps.metrics.accepted.begin(settings.domain)
        if settings.admission is Admission.FALLBACK:
            self.fallback.set()

    def told(self, partition: int) -> int:
        """How many records of recipients were read in a partition: it grows as long as verify is there."""
        return self._told[partition]

    def _heard_of(self, record: Record) -> None:
        """A primary that spoke of a recipient just now is up. What is read at the start is old."""
        self._told[record.partition] += 1
        if not self._restored or not self.fallback.is_set():
            return
        kept = self.recipients.get(record.key)
        at = 0.0 if kept is None else fallback.heard_at(unpack(record.key, kept))
        if abs(self._deps.clock.wall() - at) <= fallback.UP_S:
            self._heard[record.key.rpartition(b"@")[2]] = at

    def _recipient(self, record: Record) -> bytes:
        assert record.value is not None
        return counting(record.key, self.recipients.get(record.key), record.value)

    def _of_recipients(self, key: bytes, era: int) -> RecipientRecord | None:
        kept = self.recipients.get(key)
        found = None if kept is None else unpack(key, kept)
        return found if found is not None and found.era == era else None

    def room(self, domain: str) -> tuple[int, Reply]:
        """Octets of a content for `domain` (for our own names and as a fallback the installation's), and what
        is said of one that is larger: for good only by a table that is fresh and whole (rule 7)."""
        settings = self.domains.get(domain.encode())
        size = (
            settings.max_size if isinstance(settings, DomainSettings) else self._deps.config.defaults.max_size
        )
        whole = self.whole(self.partition(domain))
        return size, replies.TOO_LARGE if whole else replies.DOMAINS_NOT_READY

    def largest_size(self) -> int:
        """The most octets that any domain takes; 0 while nobody knows, as domains are missing or stale."""
        if not all(map(self.whole, range(self._deps.partitions))):
            return 0
        if self._largest is None:  # it is asked for each second, and there may be thousands
            domains = (each for each in self.domains.values.values() if isinstance(each, DomainSettings))
            default = self._deps.config.defaults.max_size
            self._largest = max((each.max_size for each in domains), default=default)
        return self._largest

    def partition(self, domain: str) -> int:
        return topics.partition_of(domain, self._deps.partitions)


def our_names(deps: Deps) -> OurNames:
    """All host names of the installation, and the address literals of this host."""
    host = deps.config.host
    hosts = {name: name for name in deps.config.installation.hosts}
    hosts |= {f"[{address}]": host.name for address in host.ipv4}
    hosts |= {f"[IPv6:{address}]": host.name for address in host.ipv6}
    return OurNames(host.name, hosts, mailbox(deps.config.installation.operators))


def _primary(record: Record) -> PrimaryState:
    assert record.value is not None
    return decode(record.value, PrimaryState)
