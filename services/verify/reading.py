"""Where a claimed partition of `callouts` is: what comes next, what is not answered yet, what is done."""

import structlog

from libs.log.contract import Batch, Claim, Log, NotOwner, Unavailable
from libs.log.standing import standing

STALLED_S = 5.0  # a partition unheard of for so long is behind: what comes next may be old

log = structlog.get_logger()


class Reading:
    """`position` comes next, `open` are questions not answered yet."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.position: int | None = None
        self.committed: int | None = None
        self.open: set[int] = set()
        self.heard_at: float | None = None  # monotonic: the last batch that reached the end

    def live(self, batch: Batch, now: float) -> bool:
        """Were these records written just now? Then nobody's clock has to be asked how old they are."""
        kept_up = self.heard_at is not None and now - self.heard_at < STALLED_S
        self.heard_at = now if batch.position >= batch.end else None
        return kept_up

    async def start(self, from_: Log, tick_s: float) -> int | None:
        """Where to go on: after what was read, else after what the group has done. None: the claim is
        lost."""
        if self.position is None:
            try:
                self.position = await standing(from_, self.claim, "callouts", tick_s)
            except NotOwner:
                return None
        return self.position

    async def commit(self, to: Log) -> None:
        """Remember what is done; after a crash the rest is asked again, as far as somebody still waits."""
        done = min(self.open, default=self.position)
        if done is None or done < 0 or done == self.committed:
            return
        try:
            await to.commit(self.claim, "callouts", done)
            self.committed = done
        except NotOwner:
            return
        except Unavailable as error:
            log.warning("a position could not be committed", topic="callouts", error=str(error))
