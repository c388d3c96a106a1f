"""DNS as an argument: one cache for answers and failures, equal questions share one query, nothing raises.

Names are absolute always (no search list). UDP with EDNS and a payload of 1232 octets first, TCP when an
answer was truncated, without EDNS where a server does not take it. An answer of more records than anybody has
is none: SERVFAIL. Time to live: positive answers 1 s to 1 h,
NXDOMAIN and NODATA (RFC 2308) 1 s to 5 min, SERVFAIL and time-outs 5 s (RFC 9520 asks for 1 s at least).
"""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple, cast

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.MX
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.TLSA
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver

from libs.runtime.clock import Clock

_LEAST_S, _POSITIVE_S, _NEGATIVE_S, _FAILURE_S = 1.0, 3600.0, 300.0, 5.0
_ROUNDS = 2  # each server is asked so often before "no answer" is said
_ALIASES = 8  # CNAMEs that are followed with questions of our own, when the server did not
_ROOM, _ROOM_OCTETS = 20_000, 64 * 2**20  # of answers remembered; the one put in first goes first
_AT_ONCE = 256  # queries in flight: each holds a socket
_PAYLOAD = 1232
_RECORDS = 128  # of an answer that is read: each costs some 50 us, and a stranger has written them

_TYPES = {name: dns.rdatatype.from_text(name) for name in ("A", "AAAA", "CNAME", "MX", "TXT", "PTR", "TLSA")}


class Kind(StrEnum):
    """What became of a question. NODATA: the name exists, without records of this type."""

    OK = "ok"
    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    TIMEOUT = "timeout"
    SERVFAIL = "servfail"


Record = str | tuple[int, str]


class Answer(NamedTuple):
    """`records`: A and AAAA addresses; CNAME where an alias leads, one step;
    MX (preference, host), host a lower-case A-label without final dot, ""
    for the null MX "."; TXT the joined character-strings, each octet one character (latin-1); PTR the host;
    TLSA "usage selector matching-type data", the data in hexadecimal.
    `expires`: monotonic seconds; `authentic`: a resolver on loopback set AD (RFC 6840 section 5.8)."""

    kind: Kind
    records: tuple[Record, ...]
    expires: float
    authentic: bool


class _Reply(NamedTuple):
    """What one query brought: `alias` is where a chain of CNAMEs ended without an answer."""

    kind: Kind
    records: tuple[Record, ...] = ()
    ttl: float = _FAILURE_S
    authentic: bool = False
    alias: str = ""


class Dns:
    """Asks `servers` ((address, port), those of the system when empty) in order; `timeout_s` is the time that
    one question may take in all."""

    def __init__(self, servers: Sequence[tuple[str, int]], clock: Clock, timeout_s: float = 5.0) -> None:
        self.servers = tuple(servers) or _system_servers()
        self._clock, self._timeout_s = clock, timeout_s
        self._cache: dict[tuple[str, str], Answer] = {}
        self._octets = 0  # of all records in it
        self._flying: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._backend = dns.asyncbackend.get_backend("asyncio")

    async def ask(self, name: str, rtype: str) -> Answer:
        """The answer for `name` (with or without the final dot); `rtype` one of A AAAA CNAME MX TXT TLSA
        PTR (the name for PTR: `ipaddress.ip_address(...).reverse_pointer`).

        Never raises for trouble of DNS or for a name that no DNS can hold: that one is NXDOMAIN.
        """
        key = (name.rstrip(".").lower(), rtype)
        if (known := self._known(key)) is not None:
            return known
        task = self._flying.get(key)
        if task is None:
            task = self._flying[key] = asyncio.create_task(self._find(key))
            task.add_done_callback(lambda _: self._flying.pop(key, None))
        return await asyncio.shield(task)  # one asker that gives up does not spoil it for the others

    def cached(self, name: str, rtype: str) -> Answer | None:
        """What `ask` would answer without asking anybody, or None."""
        return self._known((name.rstrip(".").lower(), rtype))

    async def close(self) -> None:
        """End the queries in flight; who waits for them is cancelled."""
        tasks = tuple(self._flying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _known(self, key: tuple[str, str]) -> Answer | None:
        answer = self._cache.get(key)
        return answer if answer is not None and answer.expires > self._clock.mono() else None

    async def _find(self, key: tuple[str, str]) -> Answer:
        name, rtype = key
        qname = absolute(name)
        if qname is None:
            reply = _Reply(Kind.NXDOMAIN, ttl=_NEGATIVE_S)
        else:
            reply = await self._through_aliases(qname, rtype)
        if reply.kind is Kind.OK:
            ttl = min(max(reply.ttl, _LEAST_S), _POSITIVE_S)
        elif reply.kind in (Kind.NXDOMAIN, Kind.NODATA):
            ttl = min(max(reply.ttl, _LEAST_S), _NEGATIVE_S)
        else:
            ttl = _FAILURE_S
        answer = Answer(reply.kind, reply.records, self._clock.mono() + ttl, reply.authentic)
        self._remember(key, answer)
        return answer

    def _remember(self, key: tuple[str, str], answer: Answer) -> None:
        self._forget(key)
        self._cache[key] = answer
        self._octets += _octets(answer)
        while len(self._cache) > _ROOM or self._octets > _ROOM_OCTETS:
            self._forget(next(iter(self._cache)))

    def _forget(self, key: tuple[str, str]) -> None:
        if (answer := self._cache.pop(key, None)) is not None:
            self._octets -= _octets(answer)

    async def _through_aliases(self, qname: dns.name.Name, rtype: str) -> _Reply:
        """One question, and more where a server left a chain of CNAMEs unfinished."""
        ttl = _POSITIVE_S
        authentic = True
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                for _ in range(_ALIASES):
                    reply = await self._query(qname, rtype)
                    ttl, authentic = min(ttl, reply.ttl), authentic and reply.authentic
                    alias = absolute(reply.alias)
                    if not reply.alias or alias is None:
                        return reply._replace(ttl=ttl, authentic=authentic)
                    qname = alias
        except TimeoutError:
            return _Reply(Kind.TIMEOUT)
        return _Reply(Kind.SERVFAIL)  # a loop, or a chain that is one in practice

    async def _query(self, qname: dns.name.Name, rtype: str) -> _Reply:
        """Ask each server in turn, twice; the second time without EDNS, which some middleboxes swallow."""
        worst = Kind.TIMEOUT
        share_s = self._timeout_s / (len(self.servers) * _ROUNDS)
        for edns in (True, False):
            for address, port in self.servers:
                reply = await self._exchange(qname, rtype, address, port, share_s, edns)
                if reply is None:
                    continue
                if reply.kind is not Kind.SERVFAIL:
                    return reply
                worst = Kind.SERVFAIL
            if worst is Kind.SERVFAIL:
                break  # they were heard: a second round would hear the same
        return _Reply(worst)

    async def _exchange(
        self, qname: dns.name.Name, rtype: str, address: str, port: int, within: float, edns: bool
    ) -> _Reply | None:
        """One query to one server; None when nothing usable came back in time."""
        query = dns.message.make_query(qname, _TYPES[rtype])
        query.flags |= dns.flags.AD  # RFC 6840 section 5.7: say that we understand it
        if edns:
            query.use_edns(0, 0, _PAYLOAD)
        try:
            response = await self._answer(query, address, port, within)
        except (OSError, EOFError, dns.exception.DNSException):
            return None
        if response is None:
            return _Reply(Kind.SERVFAIL)
        if edns and response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS):
            return await self._exchange(qname, rtype, address, port, within, False)
        trusted = ipaddress.ip_address(address).is_loopback
        return _read(response, trusted=trusted)

    async def _answer(
        self, query: dns.message.Message, address: str, port: int, within: float
    ) -> dns.message.Message | None:
        """Over UDP or, if that is truncated, TCP; None for too many records. Raises OSError, EOFError,
        DNSException."""
        try:
            return await dns.asyncquery.udp(
                query,
                address,
                timeout=within,
                port=port,
                ignore_unexpected=True,
                ignore_errors=True,
                raise_on_truncation=True,
                backend=self._backend,
            )
        except dns.message.Truncated:
            octets = await self._over_tcp(query, address, port, within)
        if sum(struct.unpack("!3H", octets[6:12].ljust(6, b"\0"))) > _RECORDS:
            return None
        response = dns.message.from_wire(octets)
        if not query.is_response(response):
            raise dns.query.BadResponse
        return response

    async def _over_tcp(self, query: dns.message.Message, address: str, port: int, within: float) -> bytes:
        """RFC 7766 section 8. Raises OSError, EOFError, DNSException."""
        family = dns.inet.af_for_address(address)
        async with asyncio.timeout(within):
            backend: Any = self._backend  # what it makes has no types
            async with await backend.make_socket(
                family, socket.SOCK_STREAM, 0, None, (address, port), within
            ) as stream:
                await dns.asyncquery.send_tcp(stream, query)
                length = int.from_bytes(await _exactly(stream, 2, within))
                return await _exactly(stream, length, within)


async def _exactly(stream: Any, count: int, within: float) -> bytes:
    """Raises OSError, EOFError, DNSException."""
    octets = b""
    while len(octets) < count:
        more = await stream.recv(count - len(octets), within)
        if not more:
            raise EOFError
        octets += more
    return octets


def _octets(answer: Answer) -> int:
    return sum(len(record if isinstance(record, str) else record[1]) for record in answer.records)


def absolute(name: str) -> dns.name.Name | None:
    """`name` as an absolute name, taken literally (no escapes, no search list); None when no DNS can hold it:
    empty or over-long labels, over-long names, anything but ASCII."""
    try:
        labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
        return dns.name.Name([*labels, b""])
    except (UnicodeEncodeError, dns.exception.DNSException):
        return None


def _read(response: dns.message.Message, *, trusted: bool) -> _Reply:
    """What a response says. Anything but NOERROR and NXDOMAIN is the server's failure: SERVFAIL."""
    rcode = response.rcode()
    authentic = trusted and bool(response.flags & dns.flags.AD)
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or not isinstance(
        response, dns.message.QueryMessage
    ):
        return _Reply(Kind.SERVFAIL)
    try:
        chain = response.resolve_chaining()
    except dns.exception.DNSException:  # a chain without end, an answer that contradicts itself
        return _Reply(Kind.SERVFAIL)
    if chain.answer is not None:
        records = tuple(_record(rdata) for rdata in chain.answer)
        return _Reply(Kind.OK, records, chain.minimum_ttl, authentic)
    if rcode == dns.rcode.NXDOMAIN:
        return _Reply(Kind.NXDOMAIN, (), chain.minimum_ttl, authentic)
    unfinished = chain.cnames and not response.authority
    alias = _host(chain.canonical_name) if unfinished else ""
    return _Reply(Kind.NODATA, (), chain.minimum_ttl, authentic, alias)


def _record(rdata: dns.rdata.Rdata) -> Record:
    match rdata.rdtype:
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            address = cast("dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA", rdata).address
            return str(ipaddress.ip_address(address))
        case dns.rdatatype.MX:
            mx = cast(dns.rdtypes.ANY.MX.MX, rdata)
            return mx.preference, _host(mx.exchange)
        case dns.rdatatype.TXT:
            return b"".join(cast(dns.rdtypes.ANY.TXT.TXT, rdata).strings).decode("latin-1")
        case dns.rdatatype.TLSA:
            tlsa = cast(dns.rdtypes.ANY.TLSA.TLSA, rdata)
            return f"{tlsa.usage} {tlsa.selector} {tlsa.mtype} {tlsa.cert.hex()}"
        case _:
            return _host(cast(dns.rdtypes.ANY.PTR.PTR, rdata).target)


def _host(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _system_servers() -> tuple[tuple[str, int], ...]:
    """Those of /etc/resolv.conf; as the C library, the one on this machine where there are none."""
    try:
        resolver = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return (("127.0.0.1", 53),)
    return tuple((str(address), 53) for address in resolver.nameservers) or (("127.0.0.1", 53),)
