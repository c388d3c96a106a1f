"""Questions that nobody waits for: a second witness, after greylisting, and what the operator imported."""

import heapq
import itertools

from libs.mail.address import mailbox
from libs.runtime.deps import Deps
from services.verify import warming
from services.verify.asker import Asker
from services.verify.known import Known
from services.verify.learning import Lifetimes

ENDS = 500  # imports of one domain that end in one tick


class Background:
    """tick() now and then."""

    def __init__(self, deps: Deps, known: Known, lifetimes: Lifetimes, asker: Asker) -> None:
        self._clock, self._clocks = deps.clock, deps.events.clocks
        self._known, self._lifetimes, self._asker = known, lifetimes, asker
        # A heap of what is asked again: due (monotonic), key, mailbox, attempts; and the keys in it.
        self._again: list[tuple[float, bytes, str, int]] = []
        self._awaited: set[bytes] = set()

    def again(self, after_s: float, key: bytes, address: str, attempts: int) -> None:
        """Ask about it in `after_s` seconds, unless it waits already; `attempts`: so often that was done
        before."""
        if key not in self._awaited:
            self._awaited.add(key)
            heapq.heappush(self._again, (self._clock.mono() + after_s, key, address, attempts))

    def tick(self) -> None:
        now = self._clock.mono()
        # Without the log's clock nobody knows how long ago a first witness spoke.
        while self._clocks.agree and self._again and self._again[0][0] <= now:
            _, key, address, attempts = heapq.heappop(self._again)
            self._awaited.discard(key)
            self._ask_again(key, address, attempts)
        for domain in self._known.warming.domains():
            if self._asker.claim_of(domain) is not None and not self._known.away(domain):
                self._warm(domain)

    def _ask_again(self, key: bytes, address: str, attempts: int) -> None:
        domain = mailbox(address).domain
        known = self._known.recipient(key, address)
        if (
            self._asker.claim_of(domain) is None or self._asker.flies(key) or known.answer is None
        ):  # forgotten
            return
        if self._asker.refusal(domain, known=known.status is not None):
            self.again(self._lifetimes.witness_s, key, address, attempts)
            return
        self._asker.ask(key, domain, known, attempts=attempts, gentle=False)

    def _warm(self, domain: str) -> None:
        """Ask about the imported recipient whose turn it is: one at a time of each domain."""
        hold, now = self._asker.refusal(domain, known=True), self._clock.wall()
        for key, listed in itertools.islice(self._known.warming.turns(domain), ENDS):
            known = self._known.recipient(key, listed.mailbox)
            if known.tried is None or not known.tried.imported:
                continue  # ended; the replica will see it
            if self._asker.flies(key):
                return
            ended = warming.end(known, hold, now, self._lifetimes)
            if ended is not None:
                self._asker.write(key, domain, ended)
            elif hold or not warming.is_due(known.tried, now, self._lifetimes):
                return
            else:
                self._asker.ask(key, domain, known, gentle=True)
                return
