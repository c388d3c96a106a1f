"""The words of letters.py in German."""

from collections.abc import Mapping

from services.control.news import News

OPENING = "Hier ist {host}, der Ersatz-Mailserver (Backup-MX) für Ihre Domain {domain}."
REPLY = "Das Letzte, was wir davon gehört haben: {reply}"
DEFERRING = "Was geschehen ist: Ihr Mailserver antwortet uns, vertagt aber seit {since} jede Mail."
HINT = "Was zu tun ist: {hint}"
NO_HINT = (
    "Was zu tun ist: Sehen Sie im Protokoll Ihres Mailservers nach Verbindungen von {hosts}: Dort steht, "
    "was er gegen uns hat. Wir sind nur von Prüfungen auszunehmen; von uns kommt nichts als Mail für Ihre "
    "Domain."
)
CLOSING = (
    "Dies ist für alle, die sich um {domain} kümmern, und kommt zu jedem Anlass einmal. Fragen, und wenn "
    "Sie nichts mehr davon wollen: an den Betreiber von {host}."
)
HANDED: Mapping[str, str] = {
    "none": "Hier hat keine Mail auf ihn gewartet.",
    "all": "Mails, die hier auf ihn gewartet haben: {waited}. Alle sind übergeben.",
    "still": (
        "Mails, die hier auf ihn gewartet haben: {waited}. Übergeben sind bisher: {handed}. Es warten "
        "noch: {waiting}; sie folgen von selbst."
    ),
    "some": (
        "Mails, die hier auf ihn gewartet haben: {waited}. Davon hat Ihr Server {handed} angenommen. Von "
        "den übrigen wissen die Absender, oder sie sind hier noch einige Tage für Sie aufbewahrt."
    ),
}
LETTERS: Mapping[str, tuple[str, ...]] = {
    News.DOWN: (
        "{domain}: Ihr Mailserver ist seit {since} nicht erreichbar",
        "Was geschehen ist: Seit {since} erreichen wir Ihren Mailserver nicht.",
        "Was das heißt: Mail an {domain}, die zu uns kommt, ist hier sicher verwahrt und wird von selbst "
        "übergeben, sobald Ihr Server sie annimmt. Es warten jetzt: {waiting}. Jede Mail wird {days} Tage "
        "aufbewahrt; danach erfährt es ihr Absender, wenn er sicher feststeht.",
        "Was zu tun ist: Wissen Sie davon, dann nichts. Sonst sehen Sie nach, ob der Server läuft und mit "
        "dem Internet verbunden ist, ob seine Adresse die in Ihrem DNS ist und ob Port 25 von außen "
        "erreichbar ist.",
        "Wir melden uns, wenn er wieder da ist.",
    ),
    News.REFUSING: (
        "{domain}: Ihr Mailserver lehnt Mail von uns ab",
        "Was geschehen ist: Seit {since} lehnt Ihr Mailserver alles ab, was wir ihm übergeben, gleich von "
        "wem.",
        "Was das heißt: Mail an {domain}, die zu uns kommt, wartet hier. Es warten jetzt: {waiting}. Jede "
        "Mail wird {days} Tage aufbewahrt; danach erfährt es ihr Absender, wenn er sicher feststeht. Bis "
        "dahin geht nichts verloren.",
    ),
    News.BACK: (
        "{domain}: Ihr Mailserver ist wieder da",
        "Was geschehen ist: Ihr Mailserver nimmt seit {back} wieder Mail an. Er war weg seit {since}.",
    ),
    News.BRAKE: (
        "{domain}: Ihr Mailserver lehnt Adressen ab, die er kannte",
        "Was geschehen ist: Seit {since} sagt Ihr Mailserver von Adressen in {domain}, es gebe sie nicht, "
        "obwohl er zuvor Mail für sie angenommen hat. Das sieht aus, als hätte er die Liste seiner "
        "Benutzer verloren.",
        "Was das heißt: Wir glauben es noch nicht. Mail an diese Adressen wartet hier bis zu 72 Stunden "
        "und geht so lange nicht an die Absender zurück. Es warten jetzt: {waiting}.",
        "Was zu tun ist: Sehen Sie nach, ob es die Benutzer und Aliase von {domain} noch gibt. Sind sie "
        "wirklich weg, sagen Sie es dem Betreiber von {host}: Er lässt die Mail sofort zurückgehen.",
    ),
    News.BLOCKING: (
        "{domain}: Ihr Mailserver weist unsere Fragen ab",
        "Was geschehen ist: Seit {since} weist Ihr Mailserver uns ab, wenn wir fragen, ob es einen "
        "Empfänger gibt.",
        "Was das heißt: Wir können nicht wissen, wen es in {domain} gibt. Fällt Ihr Server aus, kommt zu "
        "uns vielleicht Mail für Benutzer, die Sie nicht haben; was Ihr Server später ablehnt, ist eine "
        "Fehlermeldung an jemanden, oder es wird hier für Sie aufbewahrt.",
    ),
    News.EXPIRING: (
        "{domain}: Mail an Sie wird bald aufgegeben",
        "Was geschehen ist: Mail an {domain} wartet hier seit {oldest}, weil Ihr Mailserver sie nicht "
        "annimmt. Es warten jetzt: {waiting}.",
        "Was das heißt: Die älteste Mail wird bis {until} aufbewahrt. Danach erfährt ihr Absender, dass "
        "sie nicht zugestellt werden konnte, oder sie bleibt noch einige Tage für Sie hier; dann ist die "
        "nächste an der Reihe.",
        "Was zu tun ist: Lassen Sie Ihren Server vor diesem Tag Mail annehmen, oder nennen Sie dem "
        "Betreiber von {host} einen anderen, der es kann.",
    ),
    News.PARKED: (
        "Nicht zustellbare Mail an {domain}: {parked}",
        "Was geschehen ist: Mail an {domain} konnte nicht zugestellt werden, und ihre Absender durften "
        "davon nichts erfahren: Niemand weiß, ob sie sind, wer sie zu sein behaupten. Solche Mails sind "
        "jetzt hier: {parked}.",
        "Was das heißt: Sie werden hier einige Tage aufbewahrt und dann gelöscht.",
        "Was zu tun ist: Der Betreiber von {host} kann sie Ihnen zeigen, doch noch zustellen lassen oder "
        "löschen.",
    ),
    News.ADDRESS: (
        "Neue Adresse unserer Mailserver ab {from}: {new_address}",
        "Was geschieht: Ab {from} hat unser Host {new_host} die Adresse {new_address}. Die Ihnen bekannten "
        "Adressen bleiben, bis Sie anderes hören.",
        "Was das heißt: Von diesem Tag an verbinden wir uns auch von dort mit Ihrem Mailserver: um Mail zu "
        "übergeben und um zu fragen, wen es gibt.",
        "Was zu tun ist: Erlauben Sie {new_address} vor diesem Tag überall, wo Sie unsere anderen Adressen "
        "erlauben: Firewall, Greylisting, Sperrlisten, Begrenzungen, Spamfilter.",
        "Ihre Domains: {domains}.",
    ),
}
