"""Keeps the cores of a machine from sleeping while a server is measured.

A client that waits for its one answer lets its core sleep. Where client and server share a virtual machine, the server
then pays for waking it with each answer, and the client for being woken: more than a small prediction takes. A client
elsewhere costs a server nothing of the kind. So the kernel is asked for no latency at all, by its interface for that,
`/dev/cpu_dma_latency` (its documentation calls it PM QoS); a core without work then waits awake.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEVICE = Path("/dev/cpu_dma_latency")


@contextmanager
def awake(*, wanted: bool, device: Path = DEVICE) -> Iterator[str]:
    """Keeps the cores awake within the `with` block, where the kernel lets this process ask for that.

    Args:
        wanted: Whether to.
        device: What the kernel takes the wish by, for as long as it is open.

    Yields:
        What the cores do, in words.
    """
    if not wanted:
        yield "cores sleep while they have no work"
        return
    try:
        wish = os.open(device, os.O_WRONLY)
    except OSError as error:
        yield f"cores may sleep while they have no work: {device} cannot be opened ({error.strerror}); run as root"
        return
    try:
        os.write(wish, struct.pack("i", 0))
        yield "cores are kept awake"
    finally:
        os.close(wish)
