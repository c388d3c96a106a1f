"""What becomes of `recipients` as time goes by: confirmed again, forgotten, put right where the wrong record
is the last; each primary is asked once a day for a mailbox that nobody has, and one whose brake is pulled for
one that it had."""

from collections import deque

from libs.mail.address import mailbox
from libs.runtime.deps import Deps
from services.verify import ageing
from services.verify.ageing import Fate, Sweep
from services.verify.asker import Asker
from services.verify.background import Background
from services.verify.known import Known
from services.verify.learning import Known as KnownOfOne
from services.verify.learning import Lifetimes
from services.verify.storing import Storing

SLICE = 2000  # keys looked at in a turn
REFRESH_S = 1.0  # a primary is asked so often about a recipient that nobody asks for, one at a time
REFRESHES = 3600  # of a domain that may wait: more come with the next sweep


class Upkeep:
    """tick() now and then."""

    def __init__(
        self, deps: Deps, known: Known, storing: Storing, background: Background, t: Lifetimes, asker: Asker
    ) -> None:
        self._deps, self._known, self._storing = deps, known, storing
        self._background, self._lifetimes, self._asker = background, t, asker
        self._refreshes: dict[str, deque[bytes]] = {}
        self._under_way: dict[str, bytes] = {}  # the last one that was asked about, of each domain
        self._refreshed_at = float("-inf")
        self._brakes: dict[str, float] = {}  # pulled, and when a recipient was asked about last (monotonic)
        self._sweep = Sweep()

    def claimed(self) -> None:
        """A partition came: what is due in it is looked for at once."""
        self._sweep.restart()

    def tick(self) -> None:
        mono = self._deps.clock.mono()
        self._rule()
        self._thin_out()
        self._confirm(mono)
        for key in self._sweep.some(self._keys, mono, SLICE):
            self._age(key)
        if mono - self._refreshed_at >= REFRESH_S:
            self._refreshed_at = mono
            for domain in tuple(self._refreshes):
                self._refresh(domain)

    def _keys(self) -> list[bytes]:
        return [*self._known.recipients.values, *(b"@" + domain for domain in self._known.domains.values)]

    def _age(self, key: bytes) -> None:
        domain = key.rpartition(b"@")[2].decode()
        claim = self._asker.claim_of(domain)
        if claim is None:
            return
        if key.startswith(b"@"):
            self._primary(domain)
            return
        if self._known.outlived(key):
            self._storing.put(claim, domain, [(key, None)])
            return
        name = key.removeprefix(b"try:")
        now, certain = self._deps.clock.wall(), self._deps.events.clocks.agree
        known = self._of(name)
        if name == key:
            primary = self._known.primary(domain)
            fate = ageing.of_status(known, primary, now, certain=certain, t=self._lifetimes)
        else:
            fate = ageing.of_try(known, now, certain=certain, t=self._lifetimes)
        if fate is Fate.FORGET:
            self._storing.put(claim, domain, [(key, None)])
        elif fate is Fate.ASK and name == key:
            waiting = self._refreshes.setdefault(domain, deque())
            if len(waiting) < REFRESHES:
                waiting.append(key)
        elif fate is Fate.ASK and known.tried is not None:
            waits_s = self._lifetimes.witness_s - (now - known.tried.last_tried)
            self._background.again(max(0.0, waits_s), name, known.mailbox, 0)

    def _primary(self, domain: str) -> None:
        settings, facts = self._known.settings(domain), self._known.facts(domain)
        if facts is None:
            return  # nobody was asked for yet; the first callout brings its own
        if (
            settings is not None
            and not self._known.away(domain)
            and ageing.probe_is_due(facts, self._deps.clock.wall())
        ):
            self._asker.probe(domain)

    def _refresh(self, domain: str) -> None:
        """Ask about the next recipient that is still worth it."""
        waiting, primary = self._refreshes[domain], self._known.primary(domain)
        if (last := self._under_way.pop(domain, None)) is not None and self._asker.flies(last):
            self._under_way[domain] = last
            return
        while waiting:
            key = waiting.popleft()
            known = self._of(key)
            fate = ageing.of_status(known, primary, self._deps.clock.wall(), certain=False, t=self._lifetimes)
            if fate is not Fate.ASK or self._asker.flies(key):
                continue
            if not self._asker.refusal(domain, known=True):
                self._asker.ask(key, domain, known, gentle=True)
                self._under_way[domain] = key
            break  # not now: it comes again with the next sweep
        if not waiting:
            del self._refreshes[domain]

    def _confirm(self, mono: float) -> None:
        """While the callout brake is pulled nobody new is asked about: whether the primary knows its users
        again, somebody has to ask."""
        self._brakes = {domain: self._brakes.get(domain, mono) for domain in self._known.braked}
        for domain, since in self._brakes.items():
            if mono - since < self._lifetimes.witness_s or self._asker.claim_of(domain) is None:
                continue
            self._brakes[domain] = mono
            control = self._known.control(b"@" + domain.encode())
            if not control or self._known.away(domain) or self._asker.refusal(domain, known=True):
                continue
            key = mailbox(control).key.encode()
            if not self._asker.flies(key):
                self._asker.ask(key, domain, self._of(key), gentle=True)

    def _rule(self) -> None:
        """Where a record that does not count is the log's last, what counts is written again (rule 3)."""
        for key in tuple(self._known.overruled):
            domain = key.rpartition(b"@")[2].decode()
            claim, known = self._asker.claim_of(domain), self._known.newest(key)
            if claim is not None:
                self._known.overruled.discard(key)
                self._storing.put(claim, domain, [(key, known)])

    def _thin_out(self) -> None:
        """Forget what is too much, the oldest first."""
        for name in self._known.index.crowded():
            domain = name.decode()
            claim = self._asker.claim_of(domain)
            if claim is not None:
                surplus = [key for key in self._known.index.surplus(name) if self._known.kept(key)]
                self._storing.put(claim, domain, [(key, None) for key in surplus])

    def _of(self, key: bytes) -> KnownOfOne:
        """What is known of a recipient, with the mailbox as it was asked for."""
        known = self._known.recipient(key, key.decode())
        return known if known.status is None else known._replace(mailbox=known.status.mailbox)
