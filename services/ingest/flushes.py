"""Requests to flush a domain: who may ask how often. `now`: monotonic seconds."""

from collections import Counter

from services.ingest.limits import HOUR_S

CLIENT_FLUSHES = 30  # ETRN of one client network within an hour
FLUSH_S, FLUSH_OWN_S = 300.0, 15.0  # between two requests for a domain; those of its primary
FLUSHED = 10_000  # clients, and domains, that are remembered


class Flushes:
    """How often one client network may ask, and when the next request is written. More would give every
    stranger a way to void the backoff of a primary that defers."""

    def __init__(self) -> None:
        self._until = 0.0
        self._clients: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def client(self, network: str, now: float) -> bool:
        """Count one more of `network`; False: too many within the hour, of it or of all."""
        if now >= self._until:
            self._until = now + HOUR_S
            self._clients.clear()
        if network not in self._clients and len(self._clients) >= FLUSHED:
            return False
        self._clients[network] += 1
        return self._clients[network] <= CLIENT_FLUSHES

    def due(self, domain: str, now: float, *, own: bool) -> bool:
        """Is another request to be written? `own`: the domain's primary asks. Otherwise the last one is still
        what is being done."""
        last = self._last.get(domain)
        return last is None or now - last >= (FLUSH_OWN_S if own else FLUSH_S)

    def began(self, domain: str, now: float) -> None:
        """A request is on the log."""
        if len(self._last) > FLUSHED:
            self._last = {name: at for name, at in self._last.items() if now - at < FLUSH_S}
        self._last[domain] = now
