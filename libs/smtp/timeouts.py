"""How long a mail server is waited for, at each step."""

from typing import NamedTuple

from libs.runtime.config import DialPart


class Timeouts(NamedTuple):
    """Seconds. The defaults are those of RFC 5321 section 4.5.3.2; `block_s` for 64 KiB of content;
    `verify_s` for all replies of one verify()."""

    connect_s: float = 30.0
    banner_s: float = 300.0
    ehlo_s: float = 300.0
    starttls_s: float = 60.0
    mail_s: float = 300.0
    rcpt_s: float = 300.0
    data_s: float = 120.0
    block_s: float = 180.0
    dot_s: float = 600.0
    quit_s: float = 2.0
    verify_s: float = 600.0


STANDARD = Timeouts()


def timeouts(dial: DialPart) -> Timeouts:
    """Those of the configuration."""
    return Timeouts(
        connect_s=dial.connect_timeout_s,
        banner_s=dial.banner_timeout_s,
        ehlo_s=dial.ehlo_timeout_s,
        starttls_s=dial.starttls_timeout_s,
        mail_s=dial.mail_timeout_s,
        rcpt_s=dial.rcpt_timeout_s,
        data_s=dial.data_timeout_s,
        block_s=dial.block_timeout_s,
        dot_s=dial.dot_timeout_s,
    )


# Somebody waits at RCPT for the answer of a callout, 20 s at most; a probe is as impatient.
CALLOUT = Timeouts(
    connect_s=5.0,
    banner_s=15.0,
    ehlo_s=15.0,
    starttls_s=10.0,
    mail_s=15.0,
    rcpt_s=15.0,
    dot_s=15.0,
    verify_s=15.0,
)
