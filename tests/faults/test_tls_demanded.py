"""TLS that the domain asks for (MTA-STS, DANE) is not to be had at its primary: the mail waits, it neither
bounces nor goes out in clear."""

import hashlib
import ssl
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.faults.scene import ZONE, Scene, scene
from tests.helpers.policy_server import PolicyServer

HOST, POLICY_HOST = "mail.office.example", "mta-sts.office.example"
POLICY = "version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n"
RECORDS = textwrap.dedent(ZONE)
ANNOUNCED = f'{RECORDS}_mta-sts.office.example TXT "v=STSv1; id=1;"\n{POLICY_HOST} A 127.0.0.1\n'


class Demanding(NamedTuple):
    """`policies`: what the policy server serves; `authority`: whose certificates are trusted."""

    at: Scene
    policies: PolicyServer
    authority: trustme.CA

    async def waits(self, reason: str) -> None:
        """A mail was taken, the primary counts as down for `reason`, and it has nothing of it."""
        assert (await self.at.mail(subject="waits")).startswith("250 2.0.0")
        await self.at.health("down")
        [domain] = (await self.at.backup.ask("domain", "show", "office.example", "--json")).rows
        assert reason in domain["last_reply"]
        assert len(await self.at.queue()) == 1
        assert not self.at.office.received
        commands = [command for visit in self.at.office.visits for command in visit.commands]
        assert not any(command.startswith("MAIL") for command in commands)  # no callout and no probe either

    async def arrives(self) -> None:
        """It is handed over, encrypted, once; nobody was told anything."""
        await self.at.office.got(1)
        await self.at.emptied()
        assert self.at.subjects() == ["waits"]
        assert self.at.office.received[0].tls
        assert not self.at.backup.events("Bounce")
        assert not self.at.sender.received


def context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(made)
    return made


def offers(at: Scene, tls: ssl.SSLContext | None) -> None:
    """STARTTLS, with this context, from the next connection on."""
    others = tuple(line for line in at.office.capabilities if line != "STARTTLS")
    at.office.tls, at.office.capabilities = tls, (*others, "STARTTLS") if tls else others


@asynccontextmanager
async def demanding(folder: Path, mx: str = HOST) -> AsyncIterator[Demanding]:
    """The domain has a policy that names `mx`; its primary offers nothing yet."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    async with (
        PolicyServer(context(authority, POLICY_HOST), POLICY.format(mx=mx)) as policies,
        scene(
            folder, dial__authorities=str(folder / "authorities.pem"), dial__policy_port=str(policies.port)
        ) as at,
    ):
        at.zone.set(ANNOUNCED)
        yield Demanding(at, policies, authority)


async def test_starttls_is_not_offered(tmp_path: Path) -> None:
    """RFC 8461 section 5: with enforce, nothing in clear."""
    async with demanding(tmp_path) as it:
        await it.waits("MTA-STS: STARTTLS is not offered")
        offers(it.at, context(it.authority, HOST))
        await it.arrives()


@pytest.mark.parametrize("whose", ["another name", "another authority"])
async def test_the_certificate_is_wrong(tmp_path: Path, whose: str) -> None:
    """RFC 8461 section 4.2: it must be for the MX host, by somebody who is trusted."""
    async with demanding(tmp_path) as it:
        wrong = (it.authority, "www.office.example") if whose == "another name" else (trustme.CA(), HOST)
        offers(it.at, context(*wrong))
        await it.waits("MTA-STS: the certificate is not trusted")
        offers(it.at, context(it.authority, HOST))
        await it.arrives()


async def test_the_primary_is_not_in_the_policy(tmp_path: Path) -> None:
    """RFC 8461 section 5.1: it is not dialled at all until the domain says that it is its own."""
    async with demanding(tmp_path, mx="mx.elsewhere.example") as it:
        offers(it.at, context(it.authority, HOST))
        await it.waits(f"MTA-STS: {HOST} is not in the policy")
        it.policies.policy = POLICY.format(mx="*.office.example")
        it.at.zone.set(ANNOUNCED.replace("id=1", "id=2"))
        await it.arrives()


async def test_a_policy_that_is_only_tested(tmp_path: Path) -> None:
    """RFC 8461 section 5: mode testing hinders nothing."""
    async with demanding(tmp_path) as it:
        it.policies.policy = POLICY.replace("enforce", "testing").format(mx="mx.elsewhere.example")
        assert (await it.at.mail(subject="goes")).startswith("250 2.0.0")
        await it.at.office.got(1)
        assert it.policies.asked


def tlsa(certificate: bytes) -> str:
    digest = hashlib.sha256(certificate).hexdigest()
    return f"{RECORDS}_{{port}}._tcp.{HOST} TLSA 3 0 1 {digest}\n"


async def test_the_tlsa_record_is_of_another_certificate(tmp_path: Path) -> None:
    """RFC 7672 section 2.2: a key was changed and the record forgotten, or somebody stands in between."""
    authority = trustme.CA()
    own, old = authority.issue_cert(HOST), authority.issue_cert(HOST)
    async with scene(tmp_path, dial__dane="true") as at:
        at.zone.validating = True
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        own.configure_cert(tls)
        offers(at, tls)
        it = Demanding(at, PolicyServer(tls, ""), authority)

        def publish(pem: bytes) -> None:
            text = tlsa(ssl.PEM_cert_to_DER_cert(pem.decode()))
            at.zone.set(text.format(port=at.office.port))

        publish(old.cert_chain_pems[0].bytes())
        await it.waits("DANE: the certificate matches no TLSA record")
        publish(own.cert_chain_pems[0].bytes())
        await it.arrives()


async def test_the_tlsa_record_is_withheld(tmp_path: Path) -> None:
    """RFC 7672 section 2.1.2: no answer is no permission."""
    async with scene(tmp_path, dial__dane="true") as at:
        at.zone.validating = True
        authority = trustme.CA()
        offers(at, context(authority, HOST))
        at.zone.set(f"{RECORDS}_{at.office.port}._tcp.{HOST} !servfail\n")
        it = Demanding(at, PolicyServer(context(authority, HOST), ""), authority)
        await it.waits("DANE: no TLSA answer")
        at.zone.set(RECORDS)
        await it.arrives()
