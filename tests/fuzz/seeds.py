"""How much is tried: little in CI, more with `make fuzz` (FUZZ_BODIES, FUZZ_CASES), from other seeds with FUZZ_SEED."""

import os

BODIES = int(os.environ.get("FUZZ_BODIES", "2000"))
CASES = int(os.environ.get("FUZZ_CASES", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
