"""All planted defects."""

from tests.mutants import gating, judgement, live, proof, releases, store

DEFECTS = store.DEFECTS + judgement.DEFECTS + releases.DEFECTS + proof.DEFECTS + live.DEFECTS + gating.DEFECTS
