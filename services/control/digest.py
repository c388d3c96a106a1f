"""When a domain's contact is written to about what is parked for it: once a day at most, and only with
news."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from libs.mail.records import Domain

PARKED = "parked"
CLOCKS_S = 120.0  # the clocks of deliver, which parks, and of the log differ by so much at most (rule 10)
HOUR = 6  # UTC: from then on a day's notice is written; it has what came until then


class Told(NamedTuple):
    """The newest notice that was asked for: its day, and when that was, by the log's clock."""

    day: str
    at: float


def due(
    parked: Mapping[str, float], domains: Mapping[str, Domain], told: Mapping[str, Told], now: float
) -> Iterator[tuple[str, str]]:
    """Domains whose contact is to be written to now, with the day. `parked`: when
    the newest parked mail of each was parked; `now`: by the
    log's clock."""
    moment = datetime.fromtimestamp(now, UTC)
    day = moment.date().isoformat()
    if moment.hour < HOUR:
        return
    for name, since in sorted(parked.items()):
        domain, last = domains.get(name), told.get(name)
        if domain is None or not domain.overrides.contact:
            continue
        if last is None or (last.day < day and last.at < since + CLOCKS_S):
            yield name, day
