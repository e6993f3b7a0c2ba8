"""The pure parts of the serving benchmark: wire forms, the load generator's summary, cores, medians and aims."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.load import figures, forms
from benchmarks.load.awake import awake
from benchmarks.load.figures import AS_BINARY, AS_JSON, AT_1, AT_16, AT_64, Aim, Measured, TwoWorkers
from benchmarks.load.forms import Body, http_request, read_v2
from benchmarks.load.measuring import Cores
from benchmarks.load.models import thresholds, without_names
from benchmarks.load.wrk import Load, read_summary, write_requests
from release_platform.examples.breast_cancer.source import load

NAMES = ["a", "b"]
ROWS = np.array([[0.1, np.nextafter(0.3, 1)], [-2.0, 1e-300]])
ANSWER = np.array([[0.25, 0.75], [1 / 3, 2 / 3]])


def sent(form):
    return json.loads(form.write(NAMES, ROWS).data)


def answered(value):
    return Body(data=json.dumps(value).encode(), headers={})


def test_each_json_form_carries_every_number_unchanged():
    assert sent(forms.NATIVE_ROWS) == {"rows": [dict(zip(NAMES, row, strict=True)) for row in ROWS.tolist()]}
    assert sent(forms.NATIVE_COLUMNS) == {"columns": {"a": ROWS[:, 0].tolist(), "b": ROWS[:, 1].tolist()}}
    assert sent(forms.MLFLOW_SPLIT) == {"dataframe_split": {"columns": NAMES, "data": ROWS.tolist()}}
    assert sent(forms.V1_INSTANCES) == {"instances": ROWS.tolist()}
    assert sent(forms.LISTS) == sent(forms.BARE_LISTS) == {"rows": ROWS.tolist()}
    (tensor,) = sent(forms.V2_JSON)["inputs"]
    assert (tensor["datatype"], tensor["shape"], tensor["data"]) == ("FP64", [2, 2], ROWS.ravel().tolist())


def test_the_binary_form_is_a_header_of_the_announced_length_and_the_numbers_row_by_row():
    body = forms.V2_BINARY.write(NAMES, ROWS)
    end = int(body.headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(body.data[:end])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(body.data) - end == ROWS.nbytes
    assert np.array_equal(np.frombuffer(body.data[end:], "<f8").reshape(tensor["shape"]), ROWS)


@pytest.mark.parametrize(
    ("form", "answer"),
    [
        (forms.NATIVE_ROWS, {"predictions": ["x", "y"], "probabilities": ANSWER.tolist()}),
        (forms.MLFLOW_SPLIT, {"predictions": ANSWER.tolist()}),
        (forms.V1_INSTANCES, {"predictions": ANSWER.tolist()}),
        (forms.LISTS, {"probabilities": ANSWER.tolist()}),
        (forms.BARE_LISTS, ANSWER.tolist()),
    ],
)
def test_each_json_answer_is_read_as_it_was_written(form, answer):
    assert np.array_equal(form.read(answered(answer)), ANSWER)


def tensor(name, values, datatype, **more):
    return {"name": name, "datatype": datatype, "shape": list(values.shape), **more}


def test_probabilities_are_found_behind_another_tensor_in_json_and_in_binary():
    labels = np.array([1, 0], dtype=np.int64)
    outputs = [
        tensor("label", labels, "INT64", data=labels.tolist()),
        tensor("p", ANSWER, "FP64", data=ANSWER.ravel().tolist()),
    ]
    assert np.array_equal(read_v2(answered({"outputs": outputs})), ANSWER)
    outputs = [
        tensor("label", labels, "INT64", parameters={"binary_data_size": labels.nbytes}),
        tensor("p", ANSWER, "FP64", parameters={"binary_data_size": ANSWER.nbytes}),
    ]
    header = json.dumps({"outputs": outputs}).encode()
    headers = {"inference-header-content-length": str(len(header))}
    assert np.array_equal(read_v2(Body(data=header + labels.tobytes() + ANSWER.tobytes(), headers=headers)), ANSWER)


def test_an_answer_without_a_table_of_doubles_is_refused():
    with pytest.raises(ValueError, match="two dimensions"):
        read_v2(answered({"outputs": [tensor("p", ANSWER.ravel(), "FP64", data=ANSWER.ravel().tolist())]}))
    with pytest.raises(ValueError, match="two dimensions"):
        read_v2(answered({"outputs": []}))


def test_requests_are_whole_and_read_back_from_their_file(tmp_path):
    body = forms.V2_BINARY.write(NAMES, ROWS)
    request = http_request("/there", 8123, body)
    head, _, data = request.partition(b"\r\n\r\n")
    assert data == body.data
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /there HTTP/1.1"
    assert {"Host: 127.0.0.1:8123", f"Content-Length: {len(body.data)}"} <= set(lines)
    write_requests(tmp_path / "requests", [request, b"other"])
    assert (tmp_path / "requests").read_bytes() == b"%d\n%s5\nother" % (len(request), request)


def test_the_summary_of_the_load_generator_is_read_among_its_other_lines():
    said = '{"requests": 300, "duration_us": 1500000, "p50_us": 1500, "p99_us": 9000, "n_errors": 2}'
    assert read_summary(f"Running 1s test\n\nsummary {said}\nTransfer/sec: 1MB\n") == Load(
        per_second=200, p50_ms=1.5, p99_ms=9, n_errors=2
    )
    with pytest.raises(ValueError, match="no summary"):
        read_summary("Running 1s test\n")


@pytest.mark.parametrize(
    ("cores", "server", "workers", "load", "enough"),
    [
        ([0], (), (), (), False),
        ([0, 1], (0,), (0, 1), (1,), False),
        ([4, 5, 6], (4,), (4, 5), (6,), True),
    ],
)
def test_server_and_load_never_share_a_core_where_there_are_two(cores, server, workers, load, enough):
    found = Cores.of(cores, can_pin=True)
    assert (found.server, found.workers, found.load) == (server, workers, load)
    assert found.enough_for_workers is enough
    assert Cores.of(cores, can_pin=False) == Cores(server=(), workers=(), load=())


def loaded(per_second, p99_ms=1.0, n_errors=0):
    return Load(per_second=per_second, p50_ms=p99_ms / 2, p99_ms=p99_ms, n_errors=n_errors)


def measured(speeds, *, memory=100, first=1.0, p99_ms=1.0, empty=()):
    return Measured(
        loads={setting: [loaded(speed, p99_ms)] for setting, speed in speeds.items()},
        memory_bytes=[memory],
        first_answer_s=[first],
        empty_start_s=list(empty),
    )


def everywhere(speed):
    return dict.fromkeys(figures.SETTINGS, speed)


def contest(**ours):
    """Returns what was measured where every aim is met exactly, but for what is given of ours."""
    speeds = {AT_1: 800.0, AT_16: 800.0, AT_64: 800.0, AS_JSON: 200.0, AS_BINARY: 280.0} | ours.pop("speeds", {})
    return {
        "ours": measured(speeds, **{"memory": 100, "first": 0.5, "empty": [0.5]} | ours),
        "no-op fastapi": measured(everywhere(800.0)),
        "no-op asgi": measured(everywhere(800.0 / 0.35)),
        "mlflow": measured({AT_16: 8.0}, memory=900, first=9.0),
        "mlserver": measured({AT_1: 100.0, AT_16: 100.0, AT_64: 100.0, AS_JSON: 100.0}, memory=200, first=1.0),
        "kserve": measured(everywhere(90.0), memory=100, first=3.0),
    }


def missed(found, **more):
    return [aim.what for aim in figures.aims(found, **more) if aim.met is False]


def test_the_wish_for_awake_cores_is_open_within_the_block_only(tmp_path):
    device = tmp_path / "latency"
    device.touch()
    with awake(wanted=True, device=device) as said:
        assert said == "cores are kept awake"
        assert device.read_bytes() == bytes(4)  # no microseconds, as the kernel reads it
        assert is_open(device)
    assert not is_open(device)


def is_open(file):
    descriptors = Path("/proc/self/fd").iterdir()
    return any(file == one.readlink() for one in descriptors if one.is_symlink())


def test_cores_that_may_sleep_are_told_of(tmp_path):
    with awake(wanted=True, device=tmp_path / "absent") as said:
        assert "cores may sleep" in said
        assert "No such file or directory" in said
    with awake(wanted=False, device=tmp_path / "absent") as said:
        assert said == "cores sleep while they have no work"


def test_an_aim_is_met_at_its_limit():
    assert missed(contest(), workers=1.7, p99=1.0) == []
    assert all(aim.met for aim in figures.aims(contest(), workers=1.7, p99=1.0))


@pytest.mark.parametrize(
    ("ours", "named"),
    [
        ({"speeds": {AT_1: 799.0}}, ["requests/s, 1 row, 1 connection: ours / best peer"]),
        ({"speeds": {AT_64: 799.0}}, ["requests/s, 1 row, 64 connections: ours / best peer"]),
        ({"speeds": {AS_JSON: 199.0}}, ["requests/s, 1,000 rows as JSON, 4 connections: ours / best peer"]),
        ({"speeds": {AS_BINARY: 279.0}}, ["requests/s, 1,000 rows as binary, 4 connections: ours / best peer"]),
        ({"memory": 101}, ["memory: ours / leanest peer"]),
        ({"first": 0.51}, ["first right answer, restart: ours / fastest peer"]),
        ({"empty": [0.51]}, ["first right answer, no copy on disk: ours / fastest peer"]),
    ],
)
def test_an_aim_is_missed_just_beyond_its_limit_and_no_other_with_it(ours, named):
    assert missed(contest(**ours)) == named


def test_slower_at_16_connections_misses_all_four_aims_there():
    assert len(missed(contest(speeds={AT_16: 799.0}))) == 4


def test_two_workers_are_judged_by_their_ratio():
    assert missed(contest(), workers=1.69) == ["requests/s, two workers / one"]
    unknown = figures.aims(contest(), p99=1.0)
    assert [aim.what for aim in unknown if aim.met is None] == ["requests/s, two workers / one"]


def test_p99_is_judged_by_its_ratio_in_turns():
    name = "p99, 1 row, 16 connections, in turns: ours / no-op fastapi"
    assert missed(contest(), p99=1.01) == [name]
    assert [aim.what for aim in figures.aims(contest(), workers=1.7) if aim.met is None] == [name]


@pytest.mark.parametrize(
    ("times", "share", "apart", "judged"),
    [(1.6, 0.15, False, 1.6), (1.6, 0.151, False, None), (1.6, 0.9, True, 1.6), (1.7, 0.9, False, 1.7)],
)
def test_two_workers_are_too_slow_only_where_the_load_generator_takes_little_from_them(times, share, apart, judged):
    assert TwoWorkers(times=times, generator_share=share, apart=apart).judged == judged


def test_what_was_not_measured_or_had_errors_is_not_judged():
    alone = {"ours": contest()["ours"]}
    assert {aim.met for aim in figures.aims(alone)} == {None}
    found = contest()
    found["ours"].loads[AT_1] = [loaded(800.0, n_errors=1)]
    assert [aim.met for aim in figures.aims(found, workers=1.7, p99=1.0)].count(None) == 1


def test_a_peer_with_errors_is_not_the_best_one():
    found = contest()
    found["mlserver"].loads[AT_1] = [loaded(100.0, n_errors=1)]
    assert figures.best_peer(found, AT_1) == 90.0


def test_the_median_round_counts_and_errors_add_up():
    one = Measured(loads={AT_1: [loaded(1.0, 9.0, 1), loaded(50.0, 1.0), loaded(3.0, 2.0, 2)]})
    assert one.at(AT_1) == Load(per_second=3.0, p50_ms=1.0, p99_ms=2.0, n_errors=3)
    assert one.at(AT_16) is None


def test_the_tables_show_every_server_with_the_ratio_to_ours_and_its_errors():
    found = contest()
    found["kserve"].loads[AT_16] = [loaded(50.0, n_errors=7)]
    text = figures.tables(found)
    table = text[text.index(AT_16) : text.index(AT_64)].splitlines()
    assert [line.split()[0] for line in table[1:-1]] == ["ours", "no-op", "no-op", "mlflow", "mlserver", "kserve"]
    assert [line.split()[-1] for line in table[1:-2]] == ["1.00", "1.00", "0.35", "100.00", "8.00"]
    assert table[-2].endswith("7 ERRORS")


def test_the_words_of_an_aim_say_whether_it_is_met():
    assert "MISSED" in str(Aim(what="x", found=0.99, wanted=1))
    assert "MISSED" not in str(Aim(what="x", found=0.99, wanted=1, at_most=True))
    assert "not judged" in str(Aim(what="x", found=None, wanted=1))


@pytest.mark.parametrize("preparing", ["passthrough", Pipeline([("i", SimpleImputer()), ("s", StandardScaler())])])
@pytest.mark.parametrize("estimator", [HistGradientBoostingClassifier(max_iter=5), LogisticRegression(max_iter=5000)])
def test_a_pipeline_without_names_gives_the_same_answers_to_arrays(preparing, estimator):
    frame = load()
    target = frame.pop("diagnosis")
    columns = ColumnTransformer([("numeric", preparing, list(frame.columns))])
    pipeline = Pipeline([("preprocessing", columns), ("estimator", estimator)]).fit(frame, target)
    wanted = pipeline.predict_proba(frame)
    assert np.array_equal(without_names(pipeline).predict_proba(frame.to_numpy()), wanted)


def test_thresholds_are_where_the_answer_of_a_tree_changes():
    rows = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]] * 20)
    model = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=1).fit(rows, rows[:, 0] > 2)
    ((feature, threshold),) = set(thresholds(model))
    assert (feature, 2 < threshold < 3) == (0, True)
    at, above = model.predict_proba([[threshold, 5.0], [np.nextafter(threshold, np.inf), 5.0]])
    assert at[1] < 0.5 < above[1]
    assert thresholds(LogisticRegression()) == []
