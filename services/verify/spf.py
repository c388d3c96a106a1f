"""SPF (RFC 7208) on pyspf: one identity, one client address -> one result, without input or output.

pyspf is synchronous and asks a resolver. Here it asks `lookup`, which raises `Missing` for what is not known
yet; the caller finds it out and evaluates again. What it evaluates is what spf_record.py has read; a name is
expanded where its term is reached. Where pyspf departs from the RFC it is overruled: `exp=` is never fetched
(the text is the sender's), trouble with PTR means no match (section 5.5), a host without AAAA records is no
void lookup, `redirect=` counts as a lookup where it is followed.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import spf  # type: ignore[import-untyped]

from services.verify import spf_record


class Answer(Protocol):
    """What libs/runtime/dns.py answers, as far as it is needed here: `kind` ok, nxdomain, nodata, timeout or
    servfail; `expires` monotonic seconds."""

    @property
    def kind(self) -> str: ...
    @property
    def records(self) -> Sequence[str | tuple[int, str]]: ...
    @property
    def expires(self) -> float: ...


Question = tuple[str, str]  # name, type
Lookup = Callable[[str, str], Answer]


class Missing(BaseException):
    """`questions` must be answered before the evaluation can go on. Nothing between may catch it."""

    def __init__(self, *questions: Question) -> None:
        super().__init__(*questions)
        self.questions = questions


class Result(StrEnum):
    """RFC 7208 section 2.6."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


class Checked(NamedTuple):
    """`expires`: monotonic seconds, when the first of the answers used ends; `personal`: the local part was
    looked at, so the result holds for this mailbox only, else for its whole domain; `reason`: which term
    matched, or what went wrong, for people."""

    result: Result
    expires: float
    personal: bool = False
    reason: str = ""


FOR_EVER = float("inf")
NO_TERM = "no term matches"
UNANSWERED = "DNS did not answer in time, or would have been asked too much"
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})+\.?")
_FOUND, _TROUBLE = "ok", ("timeout", "servfail")


def check_host(client: str, local: str, domain: str, helo: str, lookup: Lookup) -> Checked:
    """RFC 7208 section 4: may `client` (an IP address) use `local`@`domain`?

    For the HELO identity, and for the null reverse-path (section 2.4), `local` is postmaster and `domain` the
    HELO name. `none` without a usable address or a domain of two labels (section 4.3). Raises Missing.
    """
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return Checked(Result.NONE, FOR_EVER)
    if getattr(address, "scope_id", None) is not None:  # of this link only: no record can name it
        return Checked(Result.NONE, FOR_EVER)
    if len(domain) > 253 or not _NAME.fullmatch(domain):
        return Checked(Result.NONE, FOR_EVER)
    query = _Query(client, local or "postmaster", domain.rstrip(".").lower(), helo, lookup)
    result = Result(query.check()[0])
    return Checked(result, query.expires, query.personal, _reason(query, result))


def _reason(query: "_Query", result: Result) -> str:
    match result:
        case Result.NONE:
            return "no SPF record"
        case Result.TEMPERROR | Result.PERMERROR:
            return " ".join(filter(None, (query.prob, *map(str, query.mech))))
        case _:
            return query.mechanism or NO_TERM


class _Query(spf.query):  # type: ignore[misc]
    """One evaluation. `lookups` and `void_lookups` are counted by pyspf in check_lookups and in dns()."""

    def __init__(self, client: str, local: str, domain: str, helo: str, lookup: Lookup) -> None:
        self.personal = False
        super().__init__(i=client, s=f"{local}@{domain}", h=helo or "unknown", strict=True)
        self._local, self._domain, self._lookup = local, domain, lookup
        self.o = self.d = domain  # not split at an @ of the local part, as pyspf would
        self.expires = FOR_EVER
        self.personal = False
        self._level = -1
        self._validated: list[str] | None = None

    @property
    def l(self) -> str:  # noqa: E743 the macro letter of section 7.2
        self.personal = True
        return self._local

    @l.setter
    def l(self, value: str) -> None:  # noqa: E743
        self._local = value

    @property
    def s(self) -> str:
        self.personal = True
        return f"{self._local}@{self._domain}"

    @s.setter
    def s(self, value: str) -> None:
        self._domain = value

    def dns(self, name: str, qtype: str, cnames: Any = None, ignore_void: bool = False) -> list[Any]:
        """Records of `name` in the form that pyspf expects; aliases were followed by the resolver."""
        if not _askable(name):
            return []  # also an expansion of a local part in UTF-8: it matches nothing (RFC 8616 section 4)
        answer = self._ask(name, qtype)
        if answer.kind in _TROUBLE:
            raise _trouble(name, qtype)
        if answer.kind == _FOUND:
            records = list(answer.records)
            return [[str(text).encode("latin-1")] for text in records] if qtype == "TXT" else records
        # A host with IPv4 only is no sign of abuse: an IPv6 client must not fail over three of them.
        if not ignore_void and not (qtype == "AAAA" and answer.kind == "nodata"):
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("void lookup limit exceeded")
        return []

    def _ask(self, name: str, qtype: str) -> Answer:
        answer = self._lookup(name.rstrip(".").lower(), qtype)
        self.expires = min(self.expires, answer.expires)
        return answer

    def _addresses(self, hosts: Sequence[str], *, trouble: bool) -> list[tuple[str, list[Any]]]:
        """(host, its addresses of the client's family), all asked for at once. Answers of hosts count as no
        void lookups: the term's own lookup does. `trouble`: DNS trouble is temperror, else no addresses."""
        missing: list[Question] = []
        found = []
        for host in hosts:
            try:
                answer = self._ask(host, self.A) if _askable(host) else None
            except Missing as need:
                missing += need.questions
                continue
            if answer is not None and answer.kind in _TROUBLE and trouble:
                raise _trouble(host, self.A)
            found.append((host, list(answer.records) if answer is not None and answer.kind == _FOUND else []))
        if missing:
            raise Missing(*missing)
        return found

    def dns_a(self, domainname: str, A: str = "A") -> list[Any]:  # noqa: N803 as pyspf calls it
        return self.dns(self._target(domainname), A)

    def dns_mx(self, domainname: str) -> list[Any]:
        """Addresses of all MX hosts: more than ten are a permerror (section 4.6.4)."""
        hosts = [host for _, host in sorted(self.dns(self._target(domainname), "MX"))]
        if len(hosts) > spf.MAX_MX:
            raise spf.PermError("more than 10 MX records")
        return [address for _, found in self._addresses(hosts, trouble=True) for address in found]

    def cidrmatch(self, ipaddrs: Sequence[str], n: int) -> bool:
        """Is the client within `n` bits of one of these? pyspf makes two networks of each: 40 us."""
        network = ipaddress.ip_network((self.c, n), strict=False)
        return any(ipaddress.ip_address(each) in network for each in ipaddrs)

    def validated_ptrs(self) -> list[str]:
        """Section 5.5: the first ten names of the client that point back to it; trouble means no match. A
        record may have hundreds of `%{p}`: each is a lookup, but what came of the first is so for all."""
        try:
            names = self.dns(ipaddress.ip_address(self.c).reverse_pointer, "PTR")[: spf.MAX_PTR]
        except spf.TempError:
            return []
        if self._validated is None:
            self._validated = [
                name
                for name, found in self._addresses(names, trouble=False)
                if self.cidrmatch(found, self.cidrmax)
            ]
        return self._validated

    def dns_spf(self, domain: str) -> str | None:
        """The one record of `domain`, reduced to what pyspf evaluates, or None."""
        texts = (text for (text,) in self.dns(self._target(domain), "TXT", ignore_void=True))
        try:
            record = spf_record.select(texts)
            return None if record is None else " ".join(("v=spf1", *spf_record.terms(record)))
        except spf_record.Wrong as wrong:
            raise spf.PermError(str(wrong)) from wrong

    def validate_mechanism(self, mech: str) -> tuple[str, str, str, int, str]:
        """(the term, its name, its argument, the length for this client, the result when it matches)."""
        read = spf_record.mechanism(mech)
        argument = read.argument
        if read.name not in ("ip4", "ip6"):
            argument = _Spec(argument) if argument else self.d
        if read.name == "ptr":  # pyspf compares it without a word to us
            argument = self._target(argument)
        return mech, read.name, argument, read.lengths[self.v == "ip6"], read.result

    def expand_domain(self, arg: str) -> "_Spec":
        return _Spec(arg)

    def _target(self, name: str) -> str:
        return spf_record.expand(name, self._value) if isinstance(name, _Spec) else name

    def _value(self, letter: str) -> str:
        """Of a macro (section 7.2)."""
        if letter == "p":
            self.p = None  # it depends on the domain at hand
            return str(self.getp())
        return str(getattr(self, letter))

    def check0(self, record: str | None, recursion: int) -> Any:
        """pyspf counts `redirect=` where it reads it; taken back here, counted in check1."""
        if record is not None and " redirect=" in record:
            self.lookups -= 1
        return super().check0(record, recursion)

    def check1(self, record: str | None, domain: str, recursion: int) -> Any:
        """A record on the same level as the one before it was reached through `redirect=`."""
        domain = self._target(domain)
        outer = self._level
        if recursion == outer:
            self.check_lookups()
        self._level = recursion
        try:
            return super().check1(record, domain, recursion)
        finally:
            self._level = outer


class _Spec(str):
    """A domain-spec: not a name until it is expanded."""


def _trouble(name: str, qtype: str) -> spf.TempError:
    return spf.TempError(f"no answer for {name} {qtype}")


def _askable(name: str) -> bool:
    """A name that DNS can hold; an empty host is the null MX."""
    return bool(name) and name.isascii() and all(0 < len(part) < 64 for part in name.rstrip(".").split("."))
