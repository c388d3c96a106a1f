"""The words of letters.py in English."""

from collections.abc import Mapping

from services.control.news import News

OPENING = "This is {host}, the backup mail exchanger (MX) for your domain {domain}."
REPLY = "The last that we heard of it: {reply}"
DEFERRING = "What happened: your mail server answers us, and since {since} it has put off every mail."
HINT = "What to do: {hint}"
NO_HINT = (
    "What to do: look into the log of your mail server for connections from {hosts}: it says there what it "
    "has against us. We are only to be exempted from checks; we send nothing but mail for your domain."
)
CLOSING = (
    "This is for whoever looks after {domain}, and comes once for what it is about. Questions, and if you "
    "want no more of it: the operator of {host}."
)
HANDED: Mapping[str, str] = {
    "none": "No mail waited for it here.",
    "all": "Mails that waited for it here: {waited}. All of them have been handed over.",
    "still": (
        "Mails that waited for it here: {waited}. Handed over by now: {handed}. Waiting now: {waiting}; "
        "they follow by themselves."
    ),
    "some": (
        "Mails that waited for it here: {waited}. Your server took {handed} of them. Of the others their "
        "senders were told, or they are kept here for you for some days."
    ),
}
# Of each cause: a subject in ASCII, and paragraphs.
LETTERS: Mapping[str, tuple[str, ...]] = {
    News.DOWN: (
        "{domain}: your mail server is away since {since}",
        "What happened: since {since} we cannot reach your mail server.",
        "What it means: mail for {domain} that comes to us is kept safe here and handed over by itself "
        "when your server takes it. Waiting now: {waiting}. Each mail is kept for {days} days; after that "
        "its sender is told, if he is known for sure.",
        "What to do: if you know of it, nothing. Else see whether the server runs and has a connection to "
        "the internet, whether its address is the one in your DNS, and whether port 25 can be reached from "
        "outside.",
        "You are told when it is back.",
    ),
    News.REFUSING: (
        "{domain}: your mail server refuses mail from us",
        "What happened: since {since} your mail server refuses whatever we hand over to it, whosesoever "
        "mail it is.",
        "What it means: mail for {domain} that comes to us waits here. Waiting now: {waiting}. Each mail "
        "is kept for {days} days; after that its sender is told, if he is known for sure. Nothing is lost "
        "until then.",
    ),
    News.BACK: (
        "{domain}: your mail server is back",
        "What happened: your mail server takes mail again since {back}. It was away since {since}.",
    ),
    News.BRAKE: (
        "{domain}: your mail server refuses addresses that it had",
        "What happened: since {since} your mail server says of addresses in {domain} that they do not "
        "exist, though it had taken mail for them before. That looks as if it had lost its list of users.",
        "What it means: we do not believe it yet. Mail for these addresses waits here for up to 72 hours "
        "and is not returned to its senders meanwhile. Waiting now: {waiting}.",
        "What to do: see whether the users and aliases of {domain} are still there. If they are really "
        "gone, tell the operator of {host}: he lets the mail go back at once.",
    ),
    News.BLOCKING: (
        "{domain}: your mail server blocks our questions",
        "What happened: since {since} your mail server refuses us when we ask whether a recipient exists.",
        "What it means: we cannot know who exists in {domain}. In an outage mail may come to us for users "
        "that you do not have; what your server refuses later is a failure notice to somebody, or kept "
        "here for you.",
    ),
    News.EXPIRING: (
        "{domain}: mail for you is about to expire",
        "What happened: mail for {domain} waits here since {oldest}, because your mail server does not "
        "take it. Waiting now: {waiting}.",
        "What it means: the oldest mail is kept until {until}. After that its sender is told that it could "
        "not be delivered, or it is kept here for you for some days more; then the next one's time comes.",
        "What to do: let your server take mail before that day, or tell the operator of {host} another "
        "server that can.",
    ),
    News.PARKED: (
        "Mail for {domain} that could not be delivered: {parked}",
        "What happened: mail for {domain} could not be delivered, and its senders could not be told: "
        "nobody knows whether they are who they say. Such mails here now: {parked}.",
        "What it means: it is kept here for some days and then deleted.",
        "What to do: the operator of {host} can show it to you, have it delivered after all, or delete it.",
    ),
    News.ADDRESS: (
        "New address of our mail servers from {from}: {new_address}",
        "What happened: from {from} on, our host {new_host} has the address {new_address}. The addresses "
        "that you know stay as they are until you hear otherwise.",
        "What it means: from that day we also connect to your mail server from there: to hand over mail, "
        "and to ask who exists.",
        "What to do: before that day allow {new_address} wherever you allow our other addresses: firewall, "
        "greylisting, block lists, limits, spam filter.",
        "Your domains: {domains}.",
    ),
}
