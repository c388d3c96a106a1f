"""The configuration: one sentence for every mistake, and the environment over the file."""

from pathlib import Path

import pytest
import trustme

from libs.mail.records import Unverified
from libs.runtime.config import Endpoint
from libs.runtime.config_file import load
from libs.runtime.mistake import Wrong

GOOD = """\
state_directory = "state"

[installation]
id = "0f3a9c1e5b7d"
hosts = ["mx1.backup.example", "mx2.backup.example"]
operators = "postmaster@isp.example"

[host]
name = "mx1.backup.example"
ipv4 = ["192.0.2.1"]
ipv6 = ["2001:db8::1"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "backupmx.toml"
    path.write_text(text, "utf-8")
    return path


def wrong(folder: Path, text: str, environment: dict[str, str] | None = None) -> str:
    """The sentence, the folder's name left out."""
    with pytest.raises(Wrong) as caught:
        load(write(folder, text), environment or {})
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence.replace(f"{folder}/", "")


def test_a_file_with_what_is_needed(tmp_path: Path) -> None:
    """Three tables are enough; everything else has its default, and paths are relative to the file."""
    config = load(write(tmp_path, GOOD), {})
    assert config.host.name == "mx1.backup.example"
    assert config.state_directory == tmp_path / "state"
    assert config.smtp.listen == (Endpoint(address="0.0.0.0", port=25),)
    assert config.defaults.settings().lifetime_s == 30 * 86400
    assert config.dial.allow == ()
    assert config.installation.activation == "dns"


def test_names_are_normal(tmp_path: Path) -> None:
    """Host names are compared as lower-case A-labels without the final dot."""
    text = GOOD.replace('name = "mx1.backup.example"', 'name = "MX1.Backup.Example."')
    assert load(write(tmp_path, text), {}).host.name == "mx1.backup.example"


def test_endpoints_are_read_and_written_alike(tmp_path: Path) -> None:
    """`address:port`, IPv6 in brackets."""
    text = GOOD + '[smtp]\nlisten = ["127.0.0.1:2525", "[::1]:0"]\n'
    assert [str(each) for each in load(write(tmp_path, text), {}).smtp.listen] == [
        "127.0.0.1:2525",
        "[::1]:0",
    ]


SEALS = "[arc]\ndomain = 'backup.example'\nselector = 'arc'\n"
KNOWN = "proxy_listen, proxy_networks, listen, tls_certificate, tls_key"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[smpt]\n", "smpt: is no setting; known here are installation, host, state_directory, log, smtp"),
        ("[smtp]\nmax_conections = 5\n", f"smtp.max_conections: is no setting; known here are {KNOWN}"),
        ('[smtp]\nmax_connections = "5"\n', "smtp.max_connections: must be a whole number, not '5'"),
        ("[smtp]\nmax_connections = true\n", "smtp.max_connections: must be a whole number, not true"),
        ("[smtp]\nmax_connections = 1.5\n", "smtp.max_connections: must be a whole number, not 1.5"),
        ("[smtp]\nmax_connections = 0\n", "smtp.max_connections: must be greater than or equal to 1, not 0"),
        (
            "[smtp]\nmax_recipients = 50\n",
            "smtp.max_recipients: must be greater than or equal to 100, not 50",
        ),
        ("[smtp]\ncommand_timeout_s = inf\n", "smtp.command_timeout_s: must be a finite number, not inf"),
        ("[smtp]\ncommand_timeout_s = '9'\n", "smtp.command_timeout_s: must be a number, not '9'"),
        ("[smtp]\nlisten = '127.0.0.1:25'\n", "smtp.listen: must be a list, not '127.0.0.1:25'"),
        ("[smtp]\nlisten = []\n", "smtp.listen: must not be empty"),
        ("[smtp]\nlisten = ['127.0.0.1']\n", "smtp.listen.0: '127.0.0.1' is not of the form address:port"),
        ("[smtp]\nlisten = ['::1:25']\n", "smtp.listen.0: '::1:25' is not of the form address:port"),
        ("[smtp]\nlisten = [25]\n", "smtp.listen.0: 25 is not of the form address:port"),
        ("[smtp]\nlisten = ['[::1]:70000']\n", "smtp.listen.0.port: must be less than or equal to 65535"),
        ("[smtp]\nlisten = ['1.2.3.456:25']\n", "smtp.listen.0: '1.2.3.456' does not appear to be an IPv4"),
        ("[arc]\nkey = 'a.pem'\n", "arc: `domain`, `selector` and `key` belong together"),
        (SEALS + "key = 'none.pem'\n", "arc.key: none.pem cannot be read"),
        (
            SEALS + "key = 'backupmx.toml'\n",
            "arc.key: backupmx.toml: this is no private key in PEM without a password",
        ),
        ("[smtp]\ntls_key = 'a.pem'\n", "smtp: `tls_certificate` and `tls_key` belong together"),
        ("[smtp]\ntls_key = 'a'\ntls_certificate = 'b'\n", "smtp.tls_certificate: b cannot be read"),
        (
            '[smtp]\ntls_key = "a"\ntls_certificate = "\\u0000"\n',
            "smtp.tls_certificate: '\\x00' is no path of a file",
        ),
        ("[smtp]\nbare_newline = 'keep'\n", "smtp.bare_newline: must be 'normalize' or 'reject', not 'keep'"),
        (
            "[smtp]\nproxy_listen = ['127.0.0.1:26']\n",
            "smtp: `proxy_listen` and `proxy_networks` (who may connect there) belong together",
        ),
        (
            "[smtp]\nproxy_networks = ['10.0.0.0/8']\n",
            "smtp: `proxy_listen` and `proxy_networks` (who may connect there) belong together",
        ),
        (
            "[smtp]\nproxy_networks = ['0.0.0.0/0']\n",
            "smtp.proxy_networks.0: '0.0.0.0/0' would let everybody claim any address",
        ),
        (
            "[smtp]\ntrusted_relays = ['::/0']\n",
            "smtp.trusted_relays.0: '::/0' would let everybody claim any address",
        ),
        (
            "[smtp]\nlisten = ['[::1]:25']\nproxy_listen = ['127.0.0.1:25', '[::1]:25']\n",
            "smtp.listen: [::1]:25 is named twice in smtp.listen and smtp.proxy_listen",
        ),
        ("[health]\nlisten = 9125\n", "health.listen: 9125 is not of the form address:port"),
        ("[dial]\nport = 0\n", "dial.port: must be greater than or equal to 1, not 0"),
        ("[dial]\nallow = ['127.0.0.1/8']\n", "dial.allow.0: 127.0.0.1/8 has host bits set"),
        ("[dial]\nallow = ['home']\n", "dial.allow.0: 'home' does not appear to be an IPv4 or IPv6 network"),
        ("[log]\nkind = 'redis'\n", "log.kind: must be 'sqlite' or 'kafka', not 'redis'"),
        ("[log]\nkind = 'kafka'\n", "log: kind 'kafka' needs `bootstrap` servers"),
        ("[log]\nbootstrap = ['kafka']\n", "log.bootstrap.0: 'kafka' is not of the form host:port"),
        ("[log]\nbootstrap = ['kafka:0']\n", "log.bootstrap.0: 'kafka:0' is not of the form host:port"),
        (
            "[defaults]\nunverified = 'maybe'\n",
            "defaults.unverified: must be 'accept' or 'defer', not 'maybe'",
        ),
        ("[defaults]\nlifetime_days = 31\n", "defaults.lifetime_days: must be less than or equal to 30"),
        ("[timing]\nprobe_s = 0\n", "timing.probe_s: must be greater than 0, not 0"),
        ("[dns\n", "is not TOML: Expected ']' at the end of a table declaration (at line 13, column 5)"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    """File, key and what is wrong with it, in one line."""
    assert wrong(tmp_path, GOOD + "\n" + text).startswith(f"backupmx.toml: {sentence}")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('id = "0f3a9c1e5b7d"', "", "installation.id: is missing"),
        ('id = "0f3a9c1e5b7d"', 'id = "short"', "installation.id: string should have at least 8 characters"),
        ('state_directory = "state"', "", "state_directory: is missing"),
        ('state_directory = "state"', "state_directory = 5", "state_directory: must be text, not 5"),
        (
            'name = "mx1.backup.example"',
            'name = "mx3.backup.example"',
            "host.name 'mx3.backup.example' is not",
        ),
        ('name = "mx1.backup.example"', 'name = "mx 1"', "host.name: 'mx 1' is no host name"),
        ('name = "mx1.backup.example"', "name = 1", "host.name: must be text, not 1"),
        (
            'hosts = ["mx1.backup.example", "mx2.backup.example"]',
            "hosts = []",
            "installation.hosts: must not",
        ),
        ("postmaster@isp.example", "postmaster", "installation.operators: 'postmaster' is no mail address"),
        ("postmaster@isp.example", "ops@mx2.backup.example", "installation: operators 'ops@mx2.backup.exa"),
        ("192.0.2.1", "2001:db8::1", "host.ipv4.0: '2001:db8::1' is no IPv4 address"),
        ("2001:db8::1", "192.0.2.1", "host.ipv6.0: '192.0.2.1' is no IPv6 address"),
        (
            "[host]",
            "activation = 'trusted'\n[host]",
            "installation.activation 'trusted' is allowed with loop",
        ),
        (
            "[host]",
            "smtp = 5\n[host]",
            "installation.smtp: is no setting; known here are id, hosts, operators",
        ),
    ],
)
def test_what_is_needed_is_checked(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    """A missing setting and one that does not fit the others are named."""
    assert old in GOOD
    assert wrong(tmp_path, GOOD.replace(old, new)).startswith(f"backupmx.toml: {sentence}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, a folder and something that is no UTF-8 are one sentence each."""
    with pytest.raises(Wrong, match=r"none\.toml: cannot be read: No such file or directory$"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(Wrong, match=r"cannot be read: Is a directory$"):
        load(tmp_path, {})
    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(Wrong, match="is not TOML"):
        load(tmp_path / "latin.toml", {})


def test_tls_files_are_relative_to_the_file(tmp_path: Path) -> None:
    """A certificate beside the configuration is found from any working directory."""
    issued = trustme.CA().issue_cert("mx1.backup.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    text = GOOD + "[smtp]\ntls_certificate = 'cert.pem'\ntls_key = 'key.pem'\n"
    config = load(write(tmp_path, text), {})
    assert config.smtp.tls_certificate == tmp_path / "cert.pem"
    assert config.smtp.tls_key == tmp_path / "key.pem"
    (tmp_path / "key.pem").write_text("")
    with pytest.raises(
        Wrong, match=r"smtp\.tls_certificate: .*key\.pem cannot be used: no certificate and key"
    ):
        load(tmp_path / "backupmx.toml", {})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """A variable names its setting with __ between the levels; numbers and lists are JSON, text is text."""
    text = GOOD + "[smtp]\nmax_connections = 5\nmax_errors = 3\n"
    config = load(
        write(tmp_path, text),
        {
            "BACKUPMX_SMTP__MAX_CONNECTIONS": "7",
            "BACKUPMX_SMTP__LISTEN": '["127.0.0.1:0"]',
            "BACKUPMX_HOST__NAME": "mx2.backup.example",
            "BACKUPMX_DIAL__ALLOW": '["127.0.0.0/8"]',
            "BACKUPMX_DEFAULTS__UNVERIFIED": "defer",
            "BACKUPMX_HEALTH__LISTEN": "[::1]:0",
            "BACKUPMX_TIMING__SETTLE_S": "0.5",
            "BACKUPMX_STATE_DIRECTORY": "/var/lib/backupmx",
            "BACKUPMX_CONFIG": "is no setting",
            "HOME": "is no variable of ours",
        },
    )
    assert (config.smtp.max_connections, config.smtp.max_errors) == (7, 3)
    assert config.smtp.listen == (Endpoint(address="127.0.0.1", port=0),)
    assert config.host.name == "mx2.backup.example"
    assert config.dial.allow == ("127.0.0.0/8",)
    assert config.defaults.unverified is Unverified.DEFER
    assert config.health.listen == Endpoint(address="::1", port=0)
    assert config.timing.settle_s == 0.5
    assert config.state_directory == Path("/var/lib/backupmx")


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("SMTP__MAX_CONNECTION", "7", "there is no such setting"),
        ("SMTP_MAX_CONNECTIONS", "7", "there is no such setting"),
        ("SMTP", "{}", "there is no such setting"),
        ("SMTP__LISTEN__0", "127.0.0.1:25", "there is no such setting"),
        ("SMTP__MAX_CONNECTIONS", "many", "must be a number, not 'many'"),
        ("SMTP__MAX_CONNECTIONS", "0", "must be greater than or equal to 1, not 0"),
        ("SMTP__LISTEN", "127.0.0.1:25", 'must be a list in JSON, such as ["a", "b"], not '),
        ("SMTP__LISTEN", '["127.0.0.1"]', "'127.0.0.1' is not of the form address:port"),
        ("HOST__NAME", "mx 1", "'mx 1' is no host name"),
        ("DIAL__PORT", "99999", "must be less than or equal to 65535, not 99999"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, variable: str, text: str, sentence: str) -> None:
    """The person who set a variable must not look for the mistake in the file."""
    found = wrong(tmp_path, GOOD, {f"BACKUPMX_{variable}": text})
    assert found.startswith(f"environment variable BACKUPMX_{variable}: {sentence}")


def test_the_key_that_seals(tmp_path: Path) -> None:
    """Its path is relative to the file; RSA of 1024 bits at least, or Ed25519."""
    folder = Path(__file__).parent.parent / "verify" / "cases" / "auth" / "keys"
    for name, wrong in (
        ("rsa2048", None),
        ("rsa1024", None),
        ("rsa512", "an RSA key needs 1024 bits at least"),
    ):
        (tmp_path / "seal.pem").write_bytes((folder / f"{name}.pem").read_bytes())
        path = tmp_path / "backupmx.toml"
        path.write_text(GOOD + SEALS + "key = 'seal.pem'\n")
        if wrong is None:
            assert load(path, {}).arc.key == tmp_path / "seal.pem"
        else:
            with pytest.raises(Wrong, match=wrong):
                load(path, {})
