"""ingest: follow the tables, wait for their ends, listen, drain."""

import asyncio

import structlog
from msgspec.structs import replace

from libs.log.contract import LogError
from libs.runtime.certs import BadCertificate, Certificates
from libs.runtime.config import Config, SmtpPart
from libs.runtime.deps import Deps
from libs.runtime.run import CannotStart, Life
from services.ingest.ask import Asker
from services.ingest.commit import Committer
from services.ingest.connections import Rates
from services.ingest.content import Contents
from services.ingest.etrn import Flusher
from services.ingest.known import Known
from services.ingest.limits import Limits, Load
from services.ingest.patience import Breakdowns
from services.ingest.senders import Senders
from services.ingest.server import Server
from services.ingest.sights import Sights
from services.ingest.verdicts import Verdicts

LOOK_S = 1.0  # between two looks at the load and two signs of progress
DISK_S = 10.0  # between two looks at the log's disk and at the files of the certificate

log = structlog.get_logger()


async def ingest(deps: Deps, life: Life) -> None:
    """Turn sessions into committed mail until `life.must_drain`. Raises CannotStart when a port is taken, and
    whatever ends one of its tails."""
    known = Known(deps)
    verdicts = Verdicts(deps)
    breakdowns = Breakdowns()
    sights = Sights(deps, known.fallback)
    asker = Asker(deps, known, sights, breakdowns)
    contents = Contents(deps, verdicts, breakdowns, budget=deps.content_room // deps.config.smtp.processes)
    committer = Committer(deps, verdicts, breakdowns)
    async with asyncio.TaskGroup() as group:
        tails = [group.create_task(table.run()) for table in known.tables]
        tails += [group.create_task(verdicts.run()), group.create_task(sights.run())]
        if await _restored(known, sights, life):
            asker.full = await _full(deps, asker.full)  # before the first mail can come
            server = Server(
                deps,
                known,
                asker,
                contents,
                committer,
                Flusher(deps, known),
                Senders(deps),
                _limits_now(deps, known, asker),
                rates(deps.config.smtp),
                certificates(deps),
            )
            await server.bind(deps.config.smtp.listen)
            await server.bind(deps.config.smtp.proxy_listen, proxied=True)
            await server.listen()
            life.ready()
            await _watch(deps, life, known, asker, server)
            await server.drain()
        for tail in tails:
            tail.cancel()


async def _restored(known: Known, sights: Sights, life: Life) -> bool:
    """True once the tables are at their ends, False when the process is to end before."""

    async def caught_up() -> None:
        await known.caught_up()
        await sights.caught_up()

    ends = {asyncio.ensure_future(caught_up()), asyncio.ensure_future(life.must_drain.wait())}
    try:
        while True:
            done, _ = await asyncio.wait(ends, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            life.progress()
            if done:
                return not life.must_drain.is_set()
    finally:
        for end in ends:
            end.cancel()


async def _watch(deps: Deps, life: Life, known: Known, asker: Asker, server: Server) -> None:
    """Keep the limits in step with the load until the process is to end."""
    look_at = deps.clock.mono() + DISK_S
    while not life.must_drain.is_set():
        if deps.clock.mono() >= look_at:
            look_at = deps.clock.mono() + DISK_S
            asker.full = await _full(deps, asker.full)
            if server.certificates is not None:
                server.certificates.look()
        if life.reload.is_set():
            life.reload.clear()
            if server.certificates is not None:
                server.certificates.look(anyway=True)
        server.limits = _limits_now(deps, known, asker)
        life.progress()
        try:
            async with asyncio.timeout(LOOK_S):
                await life.must_drain.wait()
        except TimeoutError:
            continue


async def _full(deps: Deps, before: bool) -> bool:
    """Is the log's disk full? `before` holds as long as it cannot be seen."""
    try:
        return (await deps.log.bounds("content", 0)).disk > deps.config.log.max_disk_share
    except LogError as error:
        log.warning("log's disk not seen", error=f"{type(error).__name__}: {error}")
        return before


def _limits_now(deps: Deps, known: Known, asker: Asker) -> Limits:
    now = limits(deps.config, known.largest_size())
    return replace(now, load=Load(full=asker.full), access=known.rules())


def certificates(deps: Deps) -> Certificates | None:
    """Those that the configuration names. Raises CannotStart."""
    smtp = deps.config.smtp
    if smtp.tls_certificate is None or smtp.tls_key is None:
        return None
    try:
        return Certificates(smtp.tls_certificate, smtp.tls_key, deps.metrics)
    except BadCertificate as error:
        raise CannotStart(f"smtp.tls_certificate: {error}") from error


def limits(config: Config, max_size: int) -> Limits:
    """What a session may do on an installation whose most generous domain takes `max_size` octets; 0: nobody
    knows (and so it is said, RFC 1870 section 4)."""
    return Limits(
        host=config.host.name,
        capabilities=(
            "PIPELINING",
            "8BITMIME",
            "ENHANCEDSTATUSCODES",
            f"SIZE {max_size}",
            "ETRN",
            "SMTPUTF8",
            "DSN",
        ),
        max_size=max_size,
        max_errors=config.smtp.max_errors,
        max_recipients=config.smtp.max_recipients,
        tls=config.smtp.tls_certificate is not None,
    )


def rates(smtp: SmtpPart) -> Rates:
    """What clients may do by their number."""
    return Rates(
        connections=smtp.max_connections,
        per_client=smtp.max_connections_per_client,
        new=smtp.max_connection_rate,
        new_per_client=smtp.max_connection_rate_per_client,
        session_s=smtp.session_time_s,
        data=smtp.min_data_rate,
    )
