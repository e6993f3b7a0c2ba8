"""How long the soak is: short in CI, long with `make soak` (SOAK_REQUESTS, SOAK_SWAPS), which asserts times too."""

import os

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "50000"))
SWAPS = int(os.environ.get("SOAK_SWAPS", "20"))
AT_LENGTH = "SOAK_REQUESTS" in os.environ
CLIENTS = 2
CONNECTIONS = 8
