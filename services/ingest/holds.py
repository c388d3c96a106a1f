"""Mails held for their loops: when, and how many. `now`: monotonic seconds."""

from collections import Counter

from services.ingest.limits import HOUR_S

RETURNS = 3  # a content that was here so often before is held
DOMAIN_HOLDS = 10  # of a domain within an hour


class Holds:
    """So many an hour and domain. Whoever writes trace fields with our name into his mails shall not fill the
    log with what nobody delivers."""

    def __init__(self) -> None:
        self._until = 0.0
        self._domains: Counter[str] = Counter()

    def one_more(self, domain: str, now: float) -> bool:
        """Count one of `domain`; False: too many within the hour."""
        if now >= self._until:
            self._until = now + HOUR_S
            self._domains.clear()
        self._domains[domain] += 1
        return self._domains[domain] <= DOMAIN_HOLDS
