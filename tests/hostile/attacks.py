"""Every attack by its class and name."""

from tests.hostile.archives import ARCHIVES, ARRAYS, SCHEMAS, TREES
from tests.hostile.files import LINKS, MANIFESTS, TAMPERED, UNKNOWN_FILES, Attack
from tests.hostile.forests import FORESTS
from tests.hostile.graphs import GRAPHS
from tests.hostile.texts import GOLDEN, PLANS

CLASSES: dict[str, dict[str, Attack]] = {
    "tampered": TAMPERED,
    "link": LINKS,
    "manifest": MANIFESTS,
    "unknown-file": UNKNOWN_FILES,
    "plan": PLANS,
    "golden": GOLDEN,
    "archive": ARCHIVES,
    "skops-schema": SCHEMAS,
    "array": ARRAYS,
    "tree": TREES,
    "onnx": GRAPHS,
    "onnx-tree": FORESTS,
}
ATTACKS = {f"{kind}/{name}": attack for kind, attacks in CLASSES.items() for name, attack in attacks.items()}
