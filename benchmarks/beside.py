"""What stands beside the answers, and what it costs them: a shadow version, and the recording of requests.

Each is measured without the thing and with it, in turns (A B, B A, ...), at 16 connections with single rows. The ratios
of the pairs count: their median, and how they are spread. A promise is not judged where the pairs are too few or
disagree too much, as they do on a busy machine.

A shadow: one server has two models, which are the same fitted one. One of them has a version beside it that is mirrored
at share 1.0, put there by a real rollout. So the process that answers is the same in both turns. The promise is that
p99 stays within 5 %. The shadow answers after the client has its answer, in a process of its own that Linux runs only
where nothing else wants to run (SCHED_IDLE). So it takes no time from an answer, but is asked little where every core
is busy. p99 is judged at a moderate load, and only if the shadow was asked 99 % of the requests: each connection rests
25 to 75 ms between an answer and the next request, which is about 320 requests a second. Without rests the load fills
the machine: those figures are shown, and nothing is promised of them. The server and its shadow run on two cores; `wrk`
runs on a third, or on one of theirs where there is none.

Recording: two servers run at the same time and ask for API keys; one has SERVING_SAMPLE_SHARE=0.01, as docs/drift.md
says. The promise is that at most 5 % of the throughput are lost. At the end the samples are fetched, as a collector
would each minute. Both servers run on the same one core, `wrk` on another. Each pair starts them anew, since no two
processes are equally fast: where their memory lies makes 5 % of difference, so several pairs of the same two would
agree on what only these two have.
"""

import argparse
import dataclasses
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.load.figures import Aim  # noqa: E402
from benchmarks.load.measuring import Bench  # noqa: E402
from benchmarks.load.models import ESTIMATORS, Served, fetch, release, shadow  # noqa: E402
from benchmarks.load.pairs import Pair, recording_promise, shadow_promise, table  # noqa: E402
from benchmarks.load.place import begun  # noqa: E402
from benchmarks.load.process import NoAnswer  # noqa: E402
from benchmarks.load.registry import registry  # noqa: E402
from benchmarks.load.servers import Server, ours  # noqa: E402
from benchmarks.load.turns import (  # noqa: E402
    PAUSE_MS,
    Asked,
    Fetched,
    Side,
    Turns,
    asked_of,
    fetch_samples,
    variant,
    wait_for_shadow,
)
from release_platform.adapters.api_keys import ApiKeyFile  # noqa: E402
from release_platform.domain.api_keys import Scope  # noqa: E402

THINGS = ("shadow", "recording")
SAMPLE_SHARE = "0.01"
EXAMPLES = """examples:
  python benchmarks/beside.py                                     everything; about half an hour
  python benchmarks/beside.py --quick --models scaled             one short round: shows that all works
  python benchmarks/beside.py --only recording --home .bench/kept  keeps the models, and uses them again
  python benchmarks/beside.py --json figures.json --check         exit code 1 when a promise is broken
"""


@dataclass(kw_only=True)
class Found:
    """What was measured of one model.

    Attributes:
        paced: Pairs without and with a shadow, at a moderate load.
        full: The same without rests.
        asked: What the shadow was asked at the moderate load, by round.
        asked_full: And without rests.
        recorded: Pairs without and with recording.
        fetched: What a collector gets at the end; None where it was not measured.
    """

    paced: list[Pair] = field(default_factory=list)
    full: list[Pair] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    asked_full: list[Asked] = field(default_factory=list)
    recorded: list[Pair] = field(default_factory=list)
    fetched: Fetched | None = None

    @property
    def promises(self) -> list[Aim]:
        """What is promised, of what was measured."""
        shadow = [shadow_promise(self.paced, min(one.share for one in self.asked))] if self.paced else []
        return [*shadow, *([recording_promise(self.recorded)] if self.recorded else [])]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=THINGS, help="only that; default: both")
    parser.add_argument("--models", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS), help="default: all")
    parser.add_argument("--rounds", type=int, default=18, help="how often servers are started; default: %(default)s")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of a start, with a shadow; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of load in a turn; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one start, two pairs of one second: shows that all works")
    parser.add_argument("--no-pin", action="store_true", help="leave it to the kernel which core runs what")
    parser.add_argument("--home", type=Path, help="keep the trained models in this folder, and use them again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a promise is broken")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.pairs, options.seconds = 1, 2, 1
    if min(options.rounds, options.pairs, options.seconds) < 1:
        parser.error("--rounds, --pairs and --seconds are 1 or more")
    return options


def main() -> int:
    """Measures all and prints it; returns 1 if a promise was broken and `--check` was given, or a server failed."""
    options = parse()
    with begun(options) as (place, home, cores):
        release(home, options.models)
        shadowed = {name: shadow(home, name) for name in options.models if options.only != "recording"}
        if cores.load:
            os.sched_setaffinity(0, cores.load)
        turns = Turns(bench=Bench(place=place, cores=cores, seconds=options.seconds))
        with registry(home, place / "registry.log", cores) as tracking_uri:
            own = ours(tracking_uri, home, place / "cache")
            found: dict[str, Found] = {}
            for name in options.models:
                served, of = fetch(home, name, place / "models" / name), found.setdefault(name, Found())
                try:
                    if options.only != "recording":
                        _shadow(turns, own, served, shadowed[name], options, of)
                    if options.only != "shadow":
                        _recording(turns, own, served, options.rounds, of)
                except NoAnswer as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    return 1
    n_broken = _show(found)
    if options.json:
        figures = {name: dataclasses.asdict(of) for name, of in found.items()}
        options.json.write_text(json.dumps(figures, indent=1))
    return 1 if options.check and n_broken else 0


def _shadow(
    turns: Turns, own: Server, served: Served, shadowed: str, options: argparse.Namespace, found: Found
) -> None:
    """Measures a model without a shadow and the same model with one, in one server."""
    both = variant(own, "shadowed", {"SERVING_MODELS": f"{served.name},{shadowed}"}, {})
    without = Side(server=both, served=served, cores=turns.bench.cores.workers)
    having = dataclasses.replace(without, served=dataclasses.replace(served, name=shadowed))
    for number in range(options.rounds):
        print(f"round {number + 1}, {served.name}: without and with a shadow ...", flush=True)
        swapped = number % 2 == 1
        with turns.started_together(without, having) as (alone, beside):
            wait_for_shadow(beside)
            before = asked_of(beside)
            found.paced += turns.measure(alone, beside, n_pairs=options.pairs, pause_ms=PAUSE_MS, swapped=swapped)
            between = asked_of(beside)
            found.full += turns.measure(alone, beside, swapped=swapped)
            found.asked.append(between.since(before))
            found.asked_full.append(asked_of(beside).since(between))


def _recording(turns: Turns, own: Server, served: Served, rounds: int, found: Found) -> None:
    """Measures a model without and with recorded requests."""
    file = turns.bench.place / "api-keys.json"
    _, key = ApiKeyFile(file).create(f"benchmark of {served.name}", [Scope.PREDICT, Scope.ADMIN])
    headers, keys = {"Authorization": f"Bearer {key}"}, {"SERVING_API_KEYS": str(file)}
    cores = turns.bench.cores.server
    without = Side(server=variant(own, "silent", keys, headers), served=served, cores=cores)
    recording = keys | {"SERVING_SAMPLE_SHARE": SAMPLE_SHARE}
    having = Side(server=variant(own, "recording", recording, headers), served=served, cores=cores)
    for number in range(rounds):
        print(f"round {number + 1}, {served.name}: without and with recording ...", flush=True)
        swapped = number % 2 == 1
        with turns.started(without, having, swapped=swapped) as (silent, records):
            found.recorded += turns.measure(silent, records, swapped=swapped)
            if number == rounds - 1:
                print("  waiting for the minute to be over ...", flush=True)
                found.fetched = fetch_samples(records, key)


def _show(found: dict[str, Found]) -> int:
    """Prints all figures; returns how many promises are broken."""
    promises = []
    for name, of in found.items():
        print(f"\n=== {name}: {ESTIMATORS[name]['type'].rpartition('.')[2]}")
        if of.paced:
            for load, pairs, asked in (("moderate", of.paced, of.asked), ("full", of.full, of.asked_full)):
                share, n_dropped = min(one.share for one in asked), sum(one.dropped for one in asked)
                print(f"\nshadow, {load} load: it was asked {share:.1%} of the requests, {n_dropped:,.0f} were dropped")
                print(table(pairs))
        if of.fetched is not None:
            fetched = of.fetched
            print(f"\nrecording, full load: {fetched.n_samples:,} requests were fetched at the end", end=" ")
            print(f"({fetched.n_bytes / 1e6:.1f} MB in {fetched.seconds:.2f} s)")
            print(table(of.recorded))
        print("\npromises", *of.promises, sep="\n")
        promises += of.promises
    return sum(promise.met is False for promise in promises)


if __name__ == "__main__":
    sys.exit(main())
