"""A mail is done by a 2yz to its own final dot and by nothing else."""

import pytest

from libs.mail.reply import Foreign
from libs.mail.speaks import Stage
from services.deliver.outcome import Done, Known, Retry, Scope, Why, outcome


@pytest.mark.parametrize("code", [220, 250, 354])
@pytest.mark.parametrize("stage", list(Stage))
def test_only_a_yes_to_the_dot_is_a_delivery(stage: Stage, code: int) -> None:
    """A server that says yes at any other place has not taken the mail: it stays ours and is tried again."""
    got = outcome(stage, Foreign(code, "", "yes"), Known(accepted_lately=True))
    if stage is Stage.DOT and code < 300:
        assert isinstance(got, Done)
    else:
        assert isinstance(got, Retry)
        assert (got.scope, got.why) == (Scope.MAIL, Why.LOST)
