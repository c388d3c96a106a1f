"""A DNS server on loopback, over UDP and TCP on one port, that answers from a text.

The text is a master file (RFC 1035 section 5) for all names of a test at once: names are taken relative to
the root, the time to live is 1 s unless `$TTL` says otherwise. Besides it knows lines for trouble:

    office.example        MX 10 mx.office.example
                          MX 20 mx1.backup.example   (a blank at the start: the same name)
    mx.office.example     A  127.0.0.2
    slow.example          !timeout
    sick.example          !servfail MX       (this type only)
    mx.sick.example       !unsigned          (with `validating`: no AD in its answers)
"""

import asyncio
import socket
import textwrap
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.node
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.zone

TROUBLES = ("!timeout", "!servfail", "!unsigned")

Question = tuple[str, str]


class Zone:
    """`async with Zone(text) as zone: zone.port`. `questions`: (name, type) of each query, in order;
    `streams`: how many of them came over TCP. `edns=False`: a server of old, EDNS gets FORMERR. While `holds`
    is set, what came over UDP is kept in `held` until `release`. `negative_s`: how long a no
    may be remembered (RFC 2308 section 5). `validating`: it sets AD, as a resolver that validated the
    answer."""

    def __init__(
        self,
        text: str = "",
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        edns: bool = True,
        negative_s: int = 1,
        validating: bool = False,
    ) -> None:
        self.address, self.port = address, port
        self.questions: list[Question] = []
        self.streams = 0
        self.holds = False
        self.held: list[Callable[[], None]] = []
        self._edns, self.validating = edns, validating
        self._soa = dns.rrset.from_text(
            dns.name.root,
            negative_s,
            "IN",
            "SOA",
            f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {negative_s}",
        )
        self._server: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._streams: set[asyncio.Task[None]] = set()
        self.set(text)

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """As `Dns` takes them."""
        return ((self.address, self.port),)

    def set(self, text: str) -> None:
        """Answer from `text` from now on. Raises DNSException or ValueError where it is wrong."""
        plain: list[str] = []
        trouble: dict[tuple[dns.name.Name, str], str] = {}
        for line in textwrap.dedent(text).splitlines():
            words = line.split(";", 1)[0].split()
            if len(words) > 1 and words[1].startswith("!"):
                if words[1] not in TROUBLES or len(words) > 3:
                    raise ValueError(f"{line!r}: known are {', '.join(TROUBLES)}, then perhaps a type")
                name = dns.name.from_text(words[0].lower(), dns.name.root)
                trouble[name, words[2] if len(words) == 3 else ""] = words[1]
            else:
                plain.append(line if words else "")
        self._zone = dns.zone.from_text(
            "\n".join(["$TTL 1", *plain, ""]), dns.name.root, relativize=False, check_origin=False
        )
        self._trouble = trouble

    def release(self) -> None:
        """Answer what is held."""
        held, self.held = self.held, []
        for answer in held:
            answer()

    async def start(self) -> Self:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        for _ in range(20):  # a port that is free for both
            self._server = await asyncio.start_server(self._stream, self.address, self.port)
            port = int(self._server.sockets[0].getsockname()[1])
            try:
                self._datagrams, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), (self.address, port), family=family
                )
            except OSError:
                self._server.close()
                if self.port:
                    raise
                continue
            self.port = port
            return self
        raise OSError("no port is free for UDP and TCP")

    async def stop(self) -> None:
        if self._datagrams:
            self._datagrams.close()
        if self._server:
            self._server.close()
            await self._server.wait_closed()
        for stream in (streams := tuple(self._streams)):
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._streams.add(task)
        try:
            while length := await reader.readexactly(2):
                query = await reader.readexactly(int.from_bytes(length))
                self.streams += 1
                if (response := self.respond(query, 65535)) is not None:
                    writer.write(len(response).to_bytes(2) + response)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        finally:
            writer.close()
            self._streams.discard(task)

    def respond(self, wire: bytes, limit: int) -> bytes | None:
        """The response to `wire` in at most `limit` octets (or what its EDNS allows); None: silence."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            return None
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        self.questions.append((question.name.to_text(True).lower(), dns.rdatatype.to_text(question.rdtype)))
        if query.edns >= 0 and not self._edns:
            response.use_edns(-1)
            response.set_rcode(dns.rcode.FORMERR)
            return response.to_wire()
        if self.validating and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        trouble = self._fill(response, question.name, question.rdtype)
        if trouble == "!timeout":
            return None
        if trouble == "!servfail":
            response.answer, response.authority = [], []
            response.set_rcode(dns.rcode.SERVFAIL)
        if limit < 65535 and query.edns >= 0:
            limit = max(limit, query.payload)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            response.answer, response.authority = [], []
            response.flags |= dns.flags.TC
            return response.to_wire()

    def _fill(
        self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> str:
        """Answer or SOA, aliases followed; returns the trouble that a name on the way has, or ""."""
        for _ in range(10):
            name = dns.name.from_text(name.to_text().lower())
            for kind in ("", dns.rdatatype.to_text(rdtype)):
                found = self._trouble.get((name, kind))
                if found == "!unsigned":
                    response.flags &= ~dns.flags.AD
                elif found:
                    return found
            node = self._zone.get_node(name)
            if node is not None and (rdataset := node.get_rdataset(dns.rdataclass.IN, rdtype)):
                response.answer.append(dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset)))
                return ""
            alias = node.get_rdataset(dns.rdataclass.IN, dns.rdatatype.CNAME) if node is not None else None
            if alias is None:
                if node is None and not any(other.is_subdomain(name) for other in self._zone):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                response.authority.append(self._soa)
                return ""
            response.answer.append(dns.rrset.from_rdata_list(name, alias.ttl, list(alias)))
            name = alias[0].target
        return "!servfail"


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if (response := self._zone.respond(data, 512)) is not None:
            if self._zone.holds:
                self._zone.held.append(lambda: self._transport.sendto(response, addr))
            else:
                self._transport.sendto(response, addr)
