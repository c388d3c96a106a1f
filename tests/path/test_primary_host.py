"""A primary at a port of its own, known by a name of its own, that wants to know whose mail it gets: what the
operator types reaches callouts and deliveries."""

import ssl
from pathlib import Path

import trustme

from tests.helpers.client import Client
from tests.helpers.primary import CAPABILITIES, Primary
from tests.helpers.running import Running
from tests.helpers.zone import Zone

ZONE = """
    office.example       MX 10 mail.office.example
                         MX 20 mx1.backup.example
    mail.office.example  A 127.0.0.2
    own.office.example   A 127.0.0.3
"""


async def test_where_the_operator_says(tmp_path: Path) -> None:
    """Nothing goes to where the MX records say, neither a question nor a mail."""
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("smtp.office.example").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authorities.pem")
    async with (
        Zone(ZONE) as zone,
        Primary(address="127.0.0.2") as listed,
        Primary(
            known={"ann@office.example"},
            address="127.0.0.3",
            tls=tls,
            capabilities=(*CAPABILITIES, "XCLIENT ADDR HELO"),
        ) as own,
        Running(
            tmp_path / "run",
            dns=zone.servers,
            dial_port=listed.port,
            dial__authorities=str(tmp_path / "authorities.pem"),
        ) as backup,
    ):
        said = await backup.ask(
            "domain", "add", "office.example", "--primary-host", f"Own.office.example:{own.port}",
            "--tls-name", "smtp.office.example", "--xclient", "on", "--max-rate", "6000", "--json",
        )  # fmt: skip
        assert said.code == 0, said.err
        async with Client(backup.smtp_port) as client:
            await client.greet()
            assert (await client.mail("bob@office.example")).startswith("550 5.1.1")
            assert (await client.mail("ann@office.example")).startswith("250 2.0.0")
        await own.got(1)
        [mail] = own.received
        assert mail.tls
        assert mail.xclient["ADDR"] == "127.0.0.1"
        shown = await backup.ask("domain", "show", "office.example", "--json")
        settings = shown.rows[0]["settings"]
        assert (settings["primary_host"], settings["tls_name"]) == (
            f"own.office.example:{own.port}", "smtp.office.example",
        )  # fmt: skip
        assert (settings["xclient"], settings["max_rate"]) == (True, 6000)
        said = await backup.ask(
            "domain", "set", "office.example", "--primary-host", "nowhere", "--xclient", "perhaps"
        )
        assert (said.code, "xclient must be on or off" in said.err) == (2, True)
        assert listed.visits == []
        assert own.violations == []
