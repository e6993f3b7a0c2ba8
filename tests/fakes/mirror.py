"""A process of shadows that answers, hangs or dies as a request's body says: `python -m tests.fakes.mirror`."""

import os
import sys
import time

from serving.mirroring import Copy, Mirror, Mirrored, answer
from serving.observations import Reflection

DIES, HANGS = b"die", b"hang"
COMMAND = (sys.executable, "-m", __name__)


class FakeMirror(Mirror):
    """Answers everything else with 1."""

    def lacks(self, copy: Copy) -> bool:
        """See `Mirror`; it needs none."""
        return False

    def reflect(self, asked: Mirrored) -> Reflection:
        """See `Mirror`."""
        if asked.body == DIES:
            os._exit(1)
        while asked.body == HANGS:
            time.sleep(1)
        return Reflection(number=asked.number, ms=1.0, answer=1.0, counted=1.0, is_pair=True)


if __name__ == "__main__":
    sys.exit(answer(FakeMirror()))
