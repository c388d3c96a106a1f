"""Keeps what the last examination of each relay domain saw, counts and says it; and whose turn it is.

What was kept is gone with the process; the next one looks at every domain anew.
"""

import random

from libs.mail.event import Event, EventType
from libs.mail.records import Domain
from libs.runtime.deps import Deps
from services.control.checkup import Checkup, again, changes, checkup, due
from services.control.examined import Examined
from services.control.findings import Level
from services.control.register import Register

PACE_S = 1.0  # between two beginnings
QUIET_S = 60.0  # after a start, or less where domains are examined more often


class Checkups:
    """Of the control that leads; another one keeps nothing."""

    def __init__(self, deps: Deps, register: Register) -> None:
        self._deps, self._register = deps, register
        self._every_s = deps.config.timing.examine_s
        self._last: dict[str, Checkup] = {}
        self._when: dict[str, float] = {}  # monotonic seconds of the next look
        self._began = self._before = deps.clock.mono()

    def last(self, name: str) -> Checkup | None:
        return self._last.get(name)

    def keep(self, seen: Examined) -> None:
        """Count it, and say what came and what went."""
        name, before, after = seen.domain, self._last.get(seen.domain), checkup(seen, self._deps.clock.wall())
        self._count(name, before, after)
        self._last[name] = after
        self._when[name] = again(self._deps.clock.mono(), self._every_s, random.random())
        for word, finding in changes(before, after):
            text = f"{word} {finding.level} {finding.kind} {finding.at}".rstrip()
            if finding.detail:
                text += f": {finding.detail}"
            self._deps.events.emit(Event(type=EventType.FINDING, domain=name, text=text))

    def turn(self) -> str | None:
        """The domain that is to be examined now; it is not named again until its next turn."""
        now = self._deps.clock.mono()
        if not self._every_s or now - self._before < min(PACE_S, self._every_s):
            return None
        self._before = now
        leads, domains = self._register.claims.leads, self._register.book().domains
        for gone in [each for each in self._last if not leads or each not in domains]:
            self._count(gone, self._last.pop(gone), None)
        self._when = {each: self._when[each] for each in self._when if leads and each in domains}
        if not leads or now - self._began < min(QUIET_S, self._every_s):
            return None
        name = due((each for each in domains if _dialled(domains[each])), self._when, now)
        if name is not None:
            self._when[name] = again(now, self._every_s, random.random())
        return name

    def _count(self, name: str, before: Checkup | None, after: Checkup | None) -> None:
        metrics = self._deps.metrics
        for one, step in ((before, -1), (after, 1)):
            for kind, level in {(each.kind, each.level) for each in one.found} if one else ():
                metrics.domains_with_finding.labels(kind, level).inc(step)
        for level in (Level.WRONG, Level.WARNING):
            if after is not None:
                number = sum(each.level is level for each in after.found)
                metrics.findings.labels(name, level).set(number)
            elif before is not None:
                metrics.findings.remove(name, level)


def _dialled(domain: Domain) -> bool:
    """The servers of others are left alone, as deliver leaves them alone."""
    return not (domain.suspended or domain.held or domain.leaving)
