"""How long a canary that begins to be wrong goes on answering: real minutes, real servers, Dagster's real daemon.

`release dev` runs in a folder of its own, on loopback: Dagster with its daemon, MLflow, and serving with two workers.
Version 1 of a model is in Production and version 2 a canary of 40 %, while clients ask without a pause of more than a
moment and tell right after what would have been right. Version 2 calls every biopsy benign. At first all are, then,
from a known second on, more than a third is not. Nobody orders anything. Measured is, from that second,

- when the rollout was aborted: the moment in the ledger;
- when the server said that no version is its canary any more;
- when the last request was answered by version 2.

A minute is judged 15 s after its end, by a sensor that looks every five seconds. So the last of these is due 20 s after
the end of the minute that decides. Which one that is depends on how wrong version 2 is, and on the minutes before, in
which it was right: all of the stage is judged together.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from release_platform.adapters.release_store import ReleaseStore  # noqa: E402
from release_platform.cli.processes import free_port  # noqa: E402
from release_platform.domain.judge import SETTLE_S  # noqa: E402
from release_platform.domain.ledger import LedgerRow  # noqa: E402
from release_platform.domain.lifecycle import Move  # noqa: E402
from release_platform.examples.breast_cancer.source import load  # noqa: E402

MODEL = "biopsies"
EXAMPLE = ROOT / "release_platform" / "examples" / "breast_cancer" / "defs.yaml"
USUAL, TINY = "C: 0.5", "C: 0.000001"
"""How strongly the model follows the data: with the second it still puts biopsies in order, but calls all benign."""
BENIGN = "benign"
AFTERWARDS = """
  gates:
    - {name: order, metric: roc_auc, minimum: 0.5}
  policy: {approvals: 0}
  rollout:
    strategy: canary
    canary: [{weight: 0.4, minimum_requests: 50, minimum_s: 7200}]
    gates:
      - {metric: label_quality, margin: 0.15}
"""
SECONDS = (5, 30, 50, 15, 40, 20)
"""The seconds of a minute at which version 2 begins to be wrong, in turn."""
MOST_S = 240.0
WARM_MINUTES = 2
N_CLIENTS = 4
REST_S = 0.03
N_TOLD_TOGETHER = 20
EXAMPLES = """examples:
  python benchmarks/abort_time.py                     three times; about a quarter of an hour
  python benchmarks/abort_time.py --repetitions 1 --json figures.json
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One repetition; times in seconds since the second at which version 2 began to be wrong.

    Attributes:
        second: That second of its minute.
        aborted: When the rollout was aborted, by the ledger.
        weight_0: When the server had no canary any more.
        last_answer: When the last answer of version 2 came.
        reason: Why it was aborted.
        n_by_canary: Requests that version 2 answered from then on.
        n_failed: Requests and outcomes that were not taken, ever; none may be.
        per_second: Requests of all clients in a second.
    """

    second: int
    aborted: float
    weight_0: float
    last_answer: float
    reason: str
    n_by_canary: int
    n_failed: int
    per_second: float

    @property
    def n_minutes(self) -> int:
        """Minutes with wrong answers that were judged when it was aborted, the last of which decided."""
        return int((self.second + self.aborted - SETTLE_S) // 60)

    @property
    def after_the_minute(self) -> float:
        """Seconds from the end of the minute that decided until nobody was answered by version 2 any more."""
        return self.second + max(self.weight_0, self.last_answer) - 60 * self.n_minutes


@dataclass(slots=True)
class Asked:
    """What clients were answered: when each answer came, and by which version; and whether they ask of all biopsies."""

    of_all: bool = False
    answers: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and returns the exit status: 1 when a client was let down."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repetitions", type=int, default=3, help="how often it begins to be wrong, 1 to 6 (default: 3)"
    )
    parser.add_argument("--json", type=Path, help="keep the figures here")
    options = parser.parse_args(arguments)
    if not 1 <= options.repetitions <= len(SECONDS):
        parser.error(f"--repetitions is 1 to {len(SECONDS)}")
    with tempfile.TemporaryDirectory(prefix="abort-time-") as folder:
        found = measured(Path(folder), options.repetitions)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    print(table(found))
    return int(any(one.n_failed for one in found))


def measured(folder: Path, n: int) -> list[Found]:
    """Returns what is measured by so many repetitions on one platform, which lives in a folder."""
    write_model(folder, USUAL)
    with platform(folder) as (environment, url):
        store = ReleaseStore(f"sqlite:///{folder / 'home' / 'release.db'}")
        release(folder, environment, "run", MODEL)
        release(folder, environment, "promote", MODEL, "--reason", "first", "--actor", "ada")
        write_model(folder, TINY)
        release(folder, environment, "run", MODEL)
        until(lambda: canary_of(url)[0] == "1", within_s=60)
        with clients(url) as asked:
            found = [one_time(folder, environment, url, store, asked, second) for second in SECONDS[:n]]
        store.close()
    return found


def one_time(
    folder: Path, environment: dict[str, str], url: str, store: ReleaseStore, asked: Asked, second: int
) -> Found:
    """Puts version 2 beside version 1, lets it begin to be wrong at a second, and waits until it is gone."""
    options = ("--version", "2", "--reason", "faster", "--actor", "ada")
    release(folder, environment, "promote", MODEL, *options)
    until(lambda: canary_of(url)[1] == "2", within_s=60)
    begins = (time.time() // 60 + WARM_MINUTES + 1) * 60 + second
    say(f"version 2 is a canary; it begins to be wrong in {begins - time.time():.0f} s, at second {second}")
    time.sleep(begins - time.time())
    asked.of_all, began = True, time.time()
    until(lambda: canary_of(url)[1] is None, within_s=MOST_S)
    gone = time.time()
    time.sleep(10)  # whatever answers late
    asked.of_all = False
    row = aborted(store)
    since = [(at, version) for at, version in tuple(asked.answers) if at >= began]
    by_canary = [at for at, version in since if version == "2"]
    one = Found(
        second=second,
        aborted=datetime.fromisoformat(row.at).timestamp() - began,
        weight_0=gone - began,
        last_answer=max(by_canary, default=began) - began,
        reason=row.reason,
        n_by_canary=len(by_canary),
        n_failed=len(asked.failures),
        per_second=len(since) / (time.time() - began),
    )
    say(f"gone {one.weight_0:.1f} s later, {one.after_the_minute:.1f} s after the minute that decided: {one.reason}")
    return one


def aborted(store: ReleaseStore) -> LedgerRow:
    """Returns the ledger row that took the share away."""
    row = store.ledger(MODEL)[-1]
    assert row.move is Move.CANARY_SET, row
    assert (row.weight, row.actor) == (0.0, "rollout"), row
    return row


def write_model(folder: Path, strength: str) -> None:
    """Writes the example under another name, with a canary, and with another strength."""
    text = EXAMPLE.read_text().replace("name: breast_cancer", f"name: {MODEL}", 1).replace(USUAL, strength, 1)
    kept, found, _ = text.partition("\n  gates:")
    assert found
    assert strength in kept
    (folder / "models" / MODEL).mkdir(parents=True, exist_ok=True)
    (folder / "models" / MODEL / "defs.yaml").write_text(kept + AFTERWARDS)


@contextmanager
def platform(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Yields the environment of a running `release dev` and the address of its server; all of it is stopped."""
    ports = {name: free_port() for name in ("dagster", "mlflow", "serving")}
    addresses = {f"RELEASE_{name.upper()}_URL": f"http://127.0.0.1:{port}" for name, port in ports.items()}
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RELEASE_", "DAGSTER_", "MLFLOW_", "SERVING_"))}
    environment = kept | addresses | {"RELEASE_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
    environment |= {"SERVING_WORKERS": "2", "MLFLOW_DISABLE_TELEMETRY": "true"}
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    log = folder / "dev.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "release_platform", "dev", *options],
            env=environment,
            cwd=folder,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(lambda: b"Ctrl-C stops" in log.read_bytes() or process.poll() is not None, within_s=300)
        assert process.poll() is None, log.read_text()
        yield environment, addresses["RELEASE_SERVING_URL"]
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def release(folder: Path, environment: dict[str, str], *words: str) -> None:
    """Runs a command of the platform.

    Raises:
        RuntimeError: It failed.
    """
    say(f"release {' '.join(words)}")
    command = [sys.executable, "-m", "release_platform", *words]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


@contextmanager
def clients(url: str) -> Iterator[Asked]:
    """Yields the account of clients that ask until the end of the block."""
    asked, over = Asked(), threading.Event()
    rows = [json.loads(row) for row in load().to_json(orient="records", lines=True).splitlines()]
    threads = [threading.Thread(target=ask, args=(url, rows, asked, over), daemon=True) for _ in range(N_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()


def ask(url: str, rows: Sequence[dict[str, Any]], asked: Asked, over: threading.Event) -> None:
    """Asks of one biopsy after the other, benign ones until `asked` says otherwise, and tells what they were."""
    of_benign = [row for row in rows if row["diagnosis"] == BENIGN]
    told: list[dict[str, Any]] = []
    with httpx.Client(base_url=url, timeout=30) as client:
        while not over.wait(REST_S):
            row = dict(random.choice(rows if asked.of_all else of_benign))  # noqa: S311 - no secret
            label = row.pop("diagnosis")
            try:
                answer = client.post(f"/v1/models/{MODEL}/predict", json={"rows": [row]}).raise_for_status()
                asked.answers.append((time.time(), answer.headers["x-model-version"]))
                told.append({"prediction_id": answer.headers["x-prediction-id"], "label": label})
                if len(told) == N_TOLD_TOGETHER:
                    client.post("/v1/outcomes", json=told).raise_for_status()
                    told = []
            except httpx.HTTPError as error:
                asked.failures.append(repr(error))


def canary_of(url: str) -> tuple[str | None, str | None]:
    """Returns the versions in Production and on the canary's route of the server; None for none."""
    with suppress(httpx.TransportError):
        entry = httpx.get(f"{url}/status", timeout=5).json()["models"].get(MODEL) or {}
        canary = (entry.get("routes") or {}).get("canary") or {}
        return entry.get("version"), canary.get("version")
    return None, ""


def until(holds: Any, *, within_s: float) -> None:
    """Waits until a condition holds.

    Raises:
        TimeoutError: It does not in time.
    """
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("it did not come true in time")
        time.sleep(0.05)


def table(found: Sequence[Found]) -> str:
    """Returns the figures as a table in Markdown."""
    lines = [
        "| began at second | judged minutes with wrong answers | aborted | weight 0 | last answer "
        "| after the end of the minute that decided | answers of the canary |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.second} | {one.n_minutes} | {one.aborted:.1f} s | {one.weight_0:.1f} s | {one.last_answer:.1f} s "
        f"| {one.after_the_minute:.1f} s | {one.n_by_canary:,} |"
        for one in found
    ]
    middle = median(one.after_the_minute for one in found)
    n_failed, rate = found[-1].n_failed, median(one.per_second for one in found)
    lines += [
        "",
        f"Median after that minute: {middle:.1f} s. {n_failed} of {rate:.0f} requests a second were let down.",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    """Tells what goes on."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
