"""`selfcheck` by the real command against a real DNS server, and each thing that can be wrong."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from libs.runtime.our_hosts import EXPIRES_S, SPF, Certificate, Here, Host, checks
from tests.helpers.running import Running
from tests.helpers.zone import Zone

MX1, MX2 = "mx1.backup.example", "mx2.backup.example"
ZONE = """
    mx1.backup.example           A 127.0.0.1
                                 TXT "v=spf1 a -all"
    spf-test.mx1.backup.example  TXT "v=spf1 -all"
    mx2.backup.example           A 192.0.2.2
                                 TXT "v=spf1 a -all"
    spf-test.mx2.backup.example  TXT "v=spf1 -all"
    1.0.0.127.in-addr.arpa       PTR mx1.backup.example
"""
NOW = 1_800_000_000.0
HOST = Host(MX1, ("192.0.2.1",), spf=("other text", SPF), spf_test=("v=spf1 -all",))
HERE = Here(
    MX1, ("192.0.2.1",), ("192.0.2.1",), {"192.0.2.1": (MX1,)}, Certificate((MX1,), NOW + 90 * 86_400)
)


async def test_a_host_as_it_should_be(tmp_path: Path) -> None:
    """Nothing runs; all is right, until the reverse DNS is not."""
    issued = trustme.CA().issue_cert(MX1, not_after=datetime.now(UTC) + timedelta(days=90))
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    async with Zone(ZONE) as zone:
        running = Running(
            tmp_path / "run", dns=zone.servers, dial_port=25, host__ipv4='["127.0.0.1"]',
            smtp__tls_certificate=str(tmp_path / "certificate.pem"), smtp__tls_key=str(tmp_path / "key.pem"),
        )  # fmt: skip
        try:
            said = await running.ask("selfcheck")
            assert (said.code, said.err) == (0, ""), said
            assert said.out.splitlines()[0] == f"+ {MX1}: its addresses in DNS are 127.0.0.1"
            assert all(line.startswith("+ ") for line in said.out.splitlines())
            zone.set(ZONE.replace("PTR mx1.backup.example", "PTR dsl-1.isp.example"))
            said = await running.ask("selfcheck", "--json")
            assert said.code == 1
            assert [row["says"] for row in said.rows if not row["right"]] == [
                "the reverse DNS of 127.0.0.1 must name it, and says dsl-1.isp.example"
            ]
            (tmp_path / "certificate.pem").write_text("none")
            said = await running.ask("selfcheck")
            assert said.code == 2  # so it is with every command
            assert "certificate.pem" in said.err
        finally:
            await running.close()


def wrong(host: Host = HOST, here: Here = HERE) -> list[str]:
    other = Host(MX2, ("192.0.2.2",), False, (SPF,), ("v=spf1 -all",))
    return [each.says for each in checks((host, other), here, NOW) if not each.right]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        (HOST, []),
        (Host(MX1, trouble=True), ["its name servers do not answer"]),
        (Host(MX1), ["it has no address in DNS", "192.0.2.1 is configured, and not in DNS"]),
        (Host(MX1, ("192.0.2.1",), False, (), HOST.spf_test),
         ["its SPF record must be one, `v=spf1 a -all`: it has none"]),
        (Host(MX1, ("192.0.2.1",), False, ("v=spf1 +all", SPF), HOST.spf_test),
         ["its SPF record must be one, `v=spf1 a -all`: not `v=spf1 +all`, `v=spf1 a -all`"]),
        (Host(MX1, ("192.0.2.1",), False, (SPF,)),
         ["spf-test.mx1.backup.example has no TXT record `v=spf1 -all`: domain doctor needs it"]),
        (Host(MX1, ("192.0.2.1", "192.0.2.7"), False, (SPF,), HOST.spf_test),
         ["192.0.2.7 is in DNS, and not configured: owners would not allow it"]),
    ],
)  # fmt: skip
def test_what_dns_can_have_wrong(host: Host, says: list[str]) -> None:
    assert wrong(host) == says


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"present": ()}, "this machine does not have the address 192.0.2.1"),
        ({"pointers": {}}, "the reverse DNS of 192.0.2.1 must name it, and says nothing"),
        ({"certificate": None},
         "no certificate is configured: STARTTLS is not offered (smtp.tls_certificate)"),
        ({"certificate": Certificate(("x.example",), NOW + 9e7)}, "its certificate is for x.example"),
        ({"certificate": Certificate((MX1,), NOW - 1)}, "its certificate has expired"),
        ({"certificate": Certificate(("*.backup.example",), NOW + EXPIRES_S - 1)},
         "its certificate ends in 14 days"),
    ],
)  # fmt: skip
def test_what_this_host_can_have_wrong(fields: dict[str, object], says: str) -> None:
    own = {name: fields.get(name, getattr(HERE, name)) for name in HERE.__struct_fields__}
    assert wrong(here=Here(**own)) == [says]  # type: ignore[arg-type]


def test_no_addresses() -> None:
    """Without published addresses nobody can allow us."""
    assert "no published addresses are configured ([host] ipv4, ipv6)" in wrong(here=Here(MX1))
