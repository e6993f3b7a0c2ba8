"""All planted defects."""

from tests.mutants import gating, judgement, live, notices, proof, releases, rollbacks, rollouts, store, traffic

OF_RELEASES = store.DEFECTS + judgement.DEFECTS + releases.DEFECTS + proof.DEFECTS + live.DEFECTS + gating.DEFECTS
OF_WHAT_FOLLOWS = rollouts.DEFECTS + traffic.DEFECTS + rollbacks.DEFECTS + notices.DEFECTS
DEFECTS = OF_RELEASES + OF_WHAT_FOLLOWS
