"""All operations that are cut off, and all states that they start from."""

from tests.chaos.operations import OPERATIONS as RELEASES
from tests.chaos.operations import STATES as OF_RELEASES
from tests.chaos.rollout_operations import ROLLOUT_OPERATIONS, ROLLOUT_STATES

OPERATIONS = (*RELEASES, *ROLLOUT_OPERATIONS)
STATES = OF_RELEASES | ROLLOUT_STATES
