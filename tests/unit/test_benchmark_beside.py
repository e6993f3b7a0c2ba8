"""The pure parts of the benchmark of what stands beside the answers: pairs, their spread, counts and promises."""

import numpy as np
import pytest

from benchmarks.beside import THINGS, parse
from benchmarks.load.forms import NATIVE_ROWS
from benchmarks.load.pairs import Pair, judged, recording_promise, shadow_promise, spread, spread_of, table
from benchmarks.load.servers import ours
from benchmarks.load.turns import Asked, read_asked, variant
from benchmarks.load.wrk import Load

METRICS = """# HELP serving_routed_requests_total Requests that were routed
serving_routed_requests_total{model="m",version="1",model_route="stable",result="answered"} 100.0
serving_routed_requests_total{model="m",version="2",model_route="shadow",result="answered"} 90.0
serving_routed_requests_total{model="m",version="2",model_route="shadow",result="not_finite"} 5.0
serving_routed_requests_total{model="m_other",version="1",model_route="stable",result="answered"} 7.0
serving_shadow_dropped_total{model="m",version="2",reason="queue_full"} 4.0
serving_shadow_dropped_total{model="m_other",version="2",reason="queue_full"} 9.0
"""


def load(per_second=1000.0, p50_ms=1.0, p99_ms=2.0, n_errors=0):
    return Load(per_second=per_second, p50_ms=p50_ms, p99_ms=p99_ms, n_errors=n_errors)


def pairs(figure, ratios):
    before = load()
    return [Pair(without=before, having=load(**{figure: getattr(before, figure) * ratio})) for ratio in ratios]


def test_a_spread_is_the_median_the_quartiles_and_where_the_median_surely_is():
    found = spread([1.4, 1.0, 1.1, 1.3, 1.2])
    assert (found.middle, found.half, found.n) == (1.2, (1.1, 1.3), 5)
    assert found.sure is None
    assert spread([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]).sure == (1.0, 1.5)


def test_one_ratio_is_its_own_spread():
    assert spread([1.07]).half == (1.07, 1.07)
    assert spread([1.07]).sure is None


def test_the_interval_of_the_median_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(3)
    drawn = np.exp(rng.standard_exponential((2000, 18)))  # skew, as latencies are
    median = 2.0
    held = [low <= median <= high for low, high in (spread(row).sure for row in drawn.tolist())]
    assert 0.95 <= np.mean(held) < 0.985


@pytest.mark.parametrize(("times", "met"), [(1.049, True), (1.051, False)])
def test_p99_beside_a_shadow_may_be_five_percent_more(times, met):
    assert shadow_promise(pairs("p99_ms", [times] * 6), asked=1.0).met is met


@pytest.mark.parametrize(
    ("ratios", "found"), [([1.0] * 6, 1.0), ([1.001] * 6, 1.001), ([0.9] * 5, None), ([0.8, 1.2] * 4, None)]
)
def test_a_figure_is_judged_where_the_pairs_are_enough_and_agree(ratios, found):
    assert judged(pairs("p99_ms", ratios), "p99_ms", 1.0) == (found and pytest.approx(found))


@pytest.mark.parametrize(("asked", "met"), [(0.989, None), (0.99, True)])
def test_a_shadow_that_was_asked_too_little_is_not_judged(asked, met):
    assert shadow_promise(pairs("p99_ms", [1.0] * 6), asked=asked).met is met


@pytest.mark.parametrize(("times", "met"), [(0.951, True), (0.949, False)])
def test_recording_may_take_five_percent_of_the_throughput(times, met):
    assert recording_promise(pairs("per_second", [times] * 6)).met is met


def test_promises_go_by_the_median_of_the_pairs():
    ratios = [0.5, *[0.96] * 9, 0.97]
    assert recording_promise(pairs("per_second", ratios)).found == pytest.approx(0.96)


@pytest.mark.parametrize(
    ("ratios", "met"),
    [
        ([0.99] * 5, None),  # too few
        ([0.9, 0.92, 0.98, 1.0, 1.02, 1.04], None),  # the interval is wide and holds 0.95
        ([0.92, 0.94, 0.96, 0.97, 0.98, 1.0], True),  # narrow
        ([0.92, 0.93, 0.93, 0.94, 0.95, 0.97], False),
        ([0.96, 1.0, 1.1, 1.2, 1.3, 1.4], True),  # wide, but all of it is on one side
        ([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], False),
    ],
)
def test_a_promise_is_judged_when_the_pairs_agree_enough_to_say_it(ratios, met):
    assert recording_promise(pairs("per_second", ratios)).met is met


def test_pairs_in_which_requests_failed_are_shown_and_not_judged():
    failed = [*pairs("per_second", [1.0]), Pair(without=load(), having=load(n_errors=3))]
    assert spread_of(failed, "per_second") is None
    assert recording_promise(failed).met is None
    assert shadow_promise(failed, asked=1.0).met is None
    assert "ERRORS: 0 without, 3 with" in table(failed)
    assert "not judged" in table(failed)


def test_a_figure_of_zero_has_no_ratio():
    nothing = Pair(without=load(p99_ms=0.0), having=load())
    assert nothing.ratio("p99_ms") is None
    assert spread_of([nothing], "p99_ms") is None


def test_the_table_has_both_medians_and_the_ratio_of_each_figure():
    lines = table(pairs("p99_ms", [1.0, 1.1, 1.2])).splitlines()
    assert lines[2].split()[:5] == ["p99", "ms", "2.00", "2.20", "1.100"]
    assert lines[3].split()[:4] == ["requests/s", "1,000.00", "1,000.00", "1.000"]


def test_what_a_shadow_was_asked_is_read_for_its_model_only():
    found = read_asked(METRICS, "m")
    assert found == Asked(answered=100, shadow=95, dropped=4)
    assert found.since(Asked(answered=50, shadow=50, dropped=4)) == Asked(answered=50, shadow=45, dropped=0)
    assert found.share == 0.95
    assert read_asked(METRICS, "absent").share == 0


def test_a_variant_sends_its_headers_with_the_same_body(tmp_path):
    own = ours("http://127.0.0.1:1", tmp_path, tmp_path)
    keyed = variant(own, "keyed", {"SERVING_SAMPLE_SHARE": "0.01"}, {"Authorization": "Bearer k"})
    body, plain = (form.write(["a"], np.array([[1.0]])) for form in (keyed.forms.row, NATIVE_ROWS))
    assert body.data == plain.data
    assert body.headers == {**plain.headers, "Authorization": "Bearer k"}
    assert keyed.variables == {**own.variables, "SERVING_SAMPLE_SHARE": "0.01"}


def test_quick_is_one_short_round():
    options = parse(["--quick", "--only", THINGS[0]])
    assert (options.rounds, options.pairs, options.seconds) == (1, 2, 1)
    with pytest.raises(SystemExit):
        parse(["--pairs", "0"])
