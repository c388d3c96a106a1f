"""Where control and those who ask it meet: the socket, how long each waits, how much goes at once."""

SOCKET = "control.sock"  # in the state directory
WITHIN_S = 30.0  # what one write may take
ANSWER_S = 30.0  # until deliver has applied a request
PAGE = 250  # mails of the queue in an answer
SAID = 500  # addresses of recipients in a request
