"""Large blocks go back to the system."""

import subprocess
import sys

GROWN = """
from libs.runtime.heap import give_back, set_up
set_ = set_up()
def resident():
    with open("/proc/self/status", encoding="ascii") as status:
        return int(status.read().partition("VmRSS:")[2].split()[0])
before = resident()
blocks = [bytes([n % 250]) * 200_000 for n in range(500)]
held = blocks[::50]
del blocks
give_back()
print(set_, resident() - before)
"""


def test_what_is_free_is_given_back() -> None:
    """Of 100 MB in blocks of 200 kB a fiftieth stays in use, spread over all of it: the rest is not kept."""
    done = subprocess.run([sys.executable, "-c", GROWN], capture_output=True, text=True, check=True)
    was_set, kept_kb = done.stdout.split()
    assert was_set == "False" or int(kept_kb) < 10_000, done.stdout
