"""Submits a mail to a sender's server, as a desk would: with Python's smtplib."""

import asyncio
import smtplib
from collections.abc import Sequence

from tests.helpers.mailing import content
from tests.real.place import EVE


async def submit(
    port: int,
    *recipients: str,
    token: str,
    size: int = 2000,
    options: Sequence[str] = (),
    rcpt: Sequence[str] = (),
) -> None:
    """One mail for all recipients, of `size` octets; `options`, `rcpt`: parameters of MAIL and each RCPT."""

    def send() -> None:
        with smtplib.SMTP("127.0.0.1", port, "desk.sender.example", timeout=30) as client:
            assert not client.sendmail(
                EVE,
                recipients,
                content(token, size),
                mail_options=["BODY=8BITMIME", *options],
                rcpt_options=rcpt,
            )

    await asyncio.to_thread(send)
