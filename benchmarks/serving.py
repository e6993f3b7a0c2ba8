"""Our server against its peers, and against no-op servers that answer the same bytes on the same uvicorn.

Two models (histogram gradient boosting, scaled logistic regression) are trained, registered and promoted by the
platform; the peers load the same fitted pipeline. Before anything is timed, every server must give the registered
model's answers. Then one server at a time is started, warmed up and measured by `wrk`, in turns, over several rounds;
medians count. A server and all that it starts are pinned to one core, `wrk` to another. Over one connection cores are
kept awake, so that no server is charged for waking its client; `--let-sleep` leaves that to the kernel.

The slowest of a hundred answers is late because something else had the core for a moment, so it differs much from
second to second. For it ours and the no-op FastAPI route run at the same time on the same core, and are asked in turns
(A B, B A, ...) over 16 connections. The ratios of the pairs count; they are not judged where they are too few or
disagree too much.

`make bench-install` installs the peers; `wrk` is a package of the system (`apt-get install wrk`).
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Collection
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.load import figures  # noqa: E402
from benchmarks.load.awake import awake  # noqa: E402
from benchmarks.load.figures import AT_16, FASTAPI, OURS, P99_TO_FASTAPI, Measured, TwoWorkers  # noqa: E402
from benchmarks.load.measuring import Bench, Cores  # noqa: E402
from benchmarks.load.models import ESTIMATORS, Served, fetch, release  # noqa: E402
from benchmarks.load.pairs import Pair, judged, table  # noqa: E402
from benchmarks.load.place import begun  # noqa: E402
from benchmarks.load.process import NoAnswer  # noqa: E402
from benchmarks.load.registry import registry  # noqa: E402
from benchmarks.load.servers import PEER_FORMS, Server, limit, ours, peer  # noqa: E402
from benchmarks.load.turns import Side, Turns  # noqa: E402

EXAMPLES = """examples:
  python benchmarks/serving.py                                  everything; about half an hour
  python benchmarks/serving.py --quick --peers mlserver,kserve  one short round against two peers
  python benchmarks/serving.py --only-limits --models boosted   ours against the no-op servers
  python benchmarks/serving.py --json figures.json --check      exit code 1 when an aim is missed
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(PEER_FORMS), help="which peers, by comma; default: %(default)s")
    parser.add_argument("--models", default=",".join(ESTIMATORS), help="which models, by comma; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is measured; default: %(default)s")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of load in a setting; default: %(default)s")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of each round for p99; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round of one second: shows that all works")
    parser.add_argument("--only-limits", action="store_true", help="no peers")
    parser.add_argument("--no-pin", action="store_true", help="leave it to the kernel which core runs what")
    parser.add_argument("--let-sleep", action="store_true", help="let cores sleep over one connection, too")
    parser.add_argument("--home", type=Path, help="keep the trained models in this folder, and use them again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--check", action="store_true", help="exit code 1 when an aim is missed")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.pairs, options.seconds = 1, 1, 1
    options.models = _chosen(parser, options.models, ESTIMATORS)
    options.peers = [] if options.only_limits else _chosen(parser, options.peers, PEER_FORMS)
    return options


def _chosen(parser: argparse.ArgumentParser, text: str, known: Collection[str]) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are: {', '.join(known)}")
    return names


def main() -> int:
    """Measures all and prints it; returns 1 if an aim was missed and `--check` was given, or ours answers wrongly."""
    options = parse()
    with begun(options) as (place, home, cores):
        release(home, options.models)
        if cores.load:
            os.sched_setaffinity(0, cores.load)
        with awake(wanted=not options.let_sleep) as said:
            print(f"over one connection {said}", flush=True)
        with registry(home, place / "registry.log", cores) as tracking_uri:
            return _compare(options, cores, place, home, tracking_uri)


def _compare(options: argparse.Namespace, cores: Cores, place: Path, home: Path, tracking_uri: str) -> int:
    own = ours(tracking_uri, home, place / "cache")
    servers = [own, limit("fastapi"), limit("asgi"), *_installed(options.peers)]
    models = [fetch(home, name, place / "models" / name) for name in options.models]
    bench = Bench(place=place, cores=cores, seconds=options.seconds, keeps_awake=not options.let_sleep)
    found: dict[str, dict[str, Measured]] = {model.name: {} for model in models}
    left_out: dict[str, str] = {}
    for number in range(options.rounds):
        for model in models:
            for server in (server for server in servers if server.name not in left_out):
                print(f"round {number + 1}, {model.name}: {server.name} ...", flush=True)
                measured = found[model.name].setdefault(server.name, Measured())
                try:
                    bench.measure(server, model, measured)
                except NoAnswer as error:
                    left_out[server.name] = str(error)
                    print(f"  LEFT OUT: {server.name}: {error}", file=sys.stderr, flush=True)
    tails: dict[str, list[Pair]] = {model.name: [] for model in models}
    workers: dict[str, TwoWorkers | None] = {model.name: None for model in models}
    for model in models if own.name not in left_out else ():
        try:
            for number in range(options.rounds if FASTAPI not in left_out else 0):
                print(f"round {number + 1}, {model.name}: {FASTAPI} and ours in turns ...", flush=True)
                tails[model.name] += _tails(bench, own, model, options.pairs, swapped=number % 2 == 1)
            print(f"{model.name}: ours with one worker and two ...", flush=True)
            workers[model.name] = bench.two_workers(own, model, options.rounds)
        except NoAnswer as error:
            left_out["ours in turns, or with SERVING_WORKERS"] = str(error)
    missed = _show(found, tails, workers, left_out)
    if options.json:
        _write(options.json, found, tails, workers, left_out)
    return 1 if own.name in left_out or (options.check and missed) else 0


def _tails(bench: Bench, own: Server, model: Served, n_pairs: int, *, swapped: bool) -> list[Pair]:
    """Returns pairs of the no-op FastAPI route and ours, both on one core."""
    noop, served = (Side(server=one, served=model, cores=bench.cores.server) for one in (limit("fastapi"), own))
    turns = Turns(bench=bench)
    with turns.started(noop, served, swapped=swapped) as (one, other):
        return turns.measure(one, other, n_pairs=n_pairs, swapped=swapped)


def _installed(names: list[str]) -> list[Server]:
    peers = [peer(name) for name in names]
    for absent in (one for one in peers if not one.python.exists()):
        print(f"LEFT OUT: {absent.name} is not installed; `make bench-install` installs it", file=sys.stderr)
    return [one for one in peers if one.python.exists()]


def _show(
    found: dict[str, dict[str, Measured]],
    tails: dict[str, list[Pair]],
    workers: dict[str, TwoWorkers | None],
    left_out: dict[str, str],
) -> int:
    """Prints all figures; returns how many aims were missed."""
    missed = 0
    for model, measured in found.items():
        print(f"\n=== {model}: {ESTIMATORS[model]['type'].rpartition('.')[2]}")
        print(figures.tables({server: one for server, one in measured.items() if one.loads}))
        both, pairs = workers[model], tails[model]
        if pairs:
            print(f"\n{AT_16}, in turns\n{table(pairs, 'no-op', OURS)}")
        print(f"\ntwo workers / one: {'not measured' if both is None else both}")
        p99 = judged(pairs, "p99_ms", P99_TO_FASTAPI)
        aims = figures.aims(measured, workers=None if both is None else both.judged, p99=p99)
        print("\naims", *aims, sep="\n")
        missed += sum(aim.met is False for aim in aims)
    for server, reason in left_out.items():
        print(f"\nLEFT OUT: {server}: {reason}")
    return missed


def _write(
    path: Path,
    found: dict[str, dict[str, Measured]],
    tails: dict[str, list[Pair]],
    workers: dict[str, TwoWorkers | None],
    left_out: dict[str, str],
) -> None:
    models = {
        model: {server: dataclasses.asdict(one) for server, one in measured.items()}
        for model, measured in found.items()
    }
    both = {model: one and dataclasses.asdict(one) for model, one in workers.items()}
    turns = {model: [dataclasses.asdict(pair) for pair in pairs] for model, pairs in tails.items()}
    told = {"models": models, "in_turns": turns, "two_workers": both, "left_out": left_out}
    path.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    sys.exit(main())
