"""ETRN: a request on `requests`, for deliver's owner of the partition (RFC 1985).

What comes of it is a probe of the primary that DNS names, and deliveries to it: who asks is never dialled.
"""

import secrets

import structlog

from libs.log.contract import LogError
from libs.mail import replies
from libs.mail.codec import encode
from libs.mail.records import Flush
from libs.mail.reply import Reply
from libs.mail.settings import DomainSettings
from libs.runtime.deps import Deps
from services.ingest import policy
from services.ingest.connections import Peer
from services.ingest.facts import FlushFacts
from services.ingest.flushes import Flushes
from services.ingest.known import Known
from services.ingest.origin import Origins

PUBLISH_S = 5.0

log = structlog.get_logger()


class Flusher:
    """Answers ETRN."""

    def __init__(self, deps: Deps, known: Known) -> None:
        self._deps, self._known = deps, known
        self._flushes, self._origins = Flushes(), Origins(deps, known)

    async def flush(self, domain: str, client: Peer) -> Reply:
        """The reply; with a 25x a request is on the log, now or since a moment ago."""
        clock, facts = self._deps.clock, await self._facts(domain, client)
        facts = facts._replace(spent=not self._flushes.client(client.network, clock.mono()))
        answer = policy.at_etrn(facts)
        if answer.code >= 300 or not self._flushes.due(domain, clock.mono(), own=facts.own):
            return answer
        request = Flush(secrets.token_hex(8), domain, f"ETRN from {client.address}")
        partition = self._known.partition(domain)
        try:
            await self._deps.log.append(
                "requests", partition, domain.encode(), encode(request), within=PUBLISH_S
            )
        except LogError as error:
            log.warning("flush not requested", domain=domain, error=f"{type(error).__name__}: {error}")
            return replies.CANNOT_FLUSH
        self._flushes.began(domain, clock.mono())
        self._deps.metrics.flushes.inc()
        return answer

    async def _facts(self, domain: str, client: Peer) -> FlushFacts:
        known = self._known
        settings = known.domains.get(domain.encode()) if known.installation is not None else None
        if not isinstance(settings, DomainSettings):
            return FlushFacts(whole=known.whole(known.partition(domain)))
        primary = known.primaries.get(domain.encode())
        own = self._origins.is_primary(client, domain) or await self._origins.find(client, domain)
        return FlushFacts(whole=True, settings=settings, primary=primary, own=own)
