"""Batch scoring: a Parquet data set with the Production version, by the rules of the server and to the last bit."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_breast_cancer

from release_platform.adapters.scorer import Order, scorer_here
from release_platform.domain.scoring import State
from release_platform.examples.diabetes.source import load as load_diabetes
from release_platform.scoring import DataSet, partitions_of
from tests.fakes.dask_cluster import running_cluster
from tests.fakes.server import until
from tests.integration.homes import BIN, Command, environment_of, example, free_port, open_home, warm_release, why
from tests.integration.s3_server import running_s3

CANCER, DIABETES = "breast_cancer", "diabetes"
STREAM = "application/vnd.apache.arrow.stream"
PIECE = 10_000


@pytest.fixture(scope="module")
def release() -> Iterator[Command]:
    with warm_release() as run:
        yield run


@pytest.fixture(scope="module")
def home(release: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with breast_cancer in Production."""
    folder = tmp_path_factory.mktemp("scoring") / "home"
    put_into_production(release, folder, CANCER)
    return folder


@pytest.fixture(scope="module")
def with_diabetes(release: Command, home: Path) -> None:
    """The same home, with diabetes in Production too."""
    put_into_production(release, home, DIABETES)


@pytest.fixture(scope="module")
def staged(release: Command, home: Path) -> None:
    """The same home, with version 2 of breast_cancer in Staging only."""
    assert release(home, "run", CANCER).exit_code == 0


def put_into_production(release: Command, folder: Path, model: str) -> None:
    assert release(folder, "run", model).exit_code == 0
    done = release(folder, "promote", model, "--reason", "to score with")
    assert done.exit_code == 0, done.err


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[str]:
    """The address of a server over the same registry."""
    port = free_port()
    log = home.parent / "serving.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(BIN / "release"), "serve", "--port", str(port)],
            env=environment_of(home, OMP_NUM_THREADS="1"),
            cwd=home.parent,
            stdout=file,
            stderr=file,
        )
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{url}/readyz").is_success
        except httpx.TransportError:
            return False

    try:
        until(is_ready, within_s=90)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def rows_of(model: str, n: int) -> pd.DataFrame:
    """Returns n rows that a model takes, with a column that it does not take."""
    if model == DIABETES:
        known = load_diabetes()
    else:
        known = load_breast_cancer(as_frame=True).data
        known.columns = [name.replace(" ", "_") for name in known.columns]
    frame = known.sample(n, replace=True, random_state=0).reset_index(drop=True)
    frame["row_id"] = np.arange(n)
    return frame


def data_set(folder: Path, *frames: pd.DataFrame, rows_of_a_group: int = 40) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        frame.to_parquet(folder / f"part-{number}.parquet", row_group_size=rows_of_a_group)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def metadata(file: Path) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in pq.read_schema(file).metadata.items() if not k.startswith(b"ARROW")}


def answered(served: str, model: str, frame: pd.DataFrame) -> pa.Table:
    """Returns what the server says of rows, as Arrow."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    headers = {"content-type": STREAM}
    answer = httpx.post(f"{served}/v1/models/{model}/predict", content=bytes(sink.getvalue()), headers=headers)
    assert answer.status_code == 200, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


# What is scored


@pytest.mark.parametrize("model", [CANCER, DIABETES])
def test_scores_are_those_of_the_server_to_the_last_bit(
    release: Command, home: Path, served: str, tmp_path: Path, model: str, request: pytest.FixtureRequest
) -> None:
    if model == DIABETES:
        request.getfixturevalue("with_diabetes")
        until(lambda: httpx.get(f"{served}/v1/models/{model}").is_success, within_s=60)
    # Given more rows than one request may have
    frame = rows_of(model, PIECE + 234)
    data_set(tmp_path / "in", frame, rows_of_a_group=len(frame))
    # When they are scored
    done = release(home, "score", model, "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.err
    assert done.json["n_rows"] == len(frame)
    # Then every number is the one that the server gives
    described = httpx.get(f"{served}/v1/models/{model}").json()
    taken = frame[[column["name"] for column in described["inputs"]]]
    wanted = pa.concat_tables(answered(served, model, taken[begin : begin + PIECE]) for begin in (0, PIECE))
    found = pq.read_table(tmp_path / "out" / "part-0.00000.parquet")
    assert found.schema.names == wanted.schema.names
    for name in wanted.schema.names:
        one, other = found[name].to_numpy(), wanted[name].to_numpy()
        assert one.tobytes() == other.tobytes() if one.dtype.kind == "f" else one.tolist() == other.tolist()


def test_each_output_names_what_it_was_made_by_and_from(release: Command, home: Path, tmp_path: Path) -> None:
    data_set(tmp_path / "in" / "2026", rows_of(CANCER, 100))
    folders = ("--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    said = release(home, "score", CANCER, *folders, "--keep", "row_id", "--json").json
    assert said["partitions"] == {"scored": 3, "kept": 0, "failed": 0}
    status = release(home, "history", CANCER, "--json").json
    (move,) = [row for row in status if row["move"] == "promoted"]
    for group in range(3):
        file = tmp_path / "out" / "2026" / f"part-0.{group:05d}.parquet"
        names = metadata(file)
        assert (names["model"], names["version"]) == (CANCER, "1")
        assert (names["digest"], names["epoch"]) == (move["digest"], str(move["epoch"]))
        assert names["input"] == str(tmp_path / "in" / "2026" / "part-0.parquet")
        assert (names["input_row_group"], len(names["input_digest"])) == (str(group), len("sha256:") + 64)
        assert pq.read_table(file)["row_id"].to_pylist() == list(range(40 * group, min(40 * group + 40, 100)))


def test_a_file_and_an_empty_row_group_are_data_sets_too(release: Command, home: Path, tmp_path: Path) -> None:
    data_set(tmp_path / "in", rows_of(CANCER, 0), rows_of(CANCER, 5))
    everything = ("--in", str(tmp_path / "in"), "--out", str(tmp_path / "all"))
    assert release(home, "score", CANCER, *everything).exit_code == 0
    assert [pq.read_table(tmp_path / "all" / name).num_rows for name in outputs(tmp_path / "all")] == [0, 5]
    one = ("--in", str(tmp_path / "in" / "part-1.parquet"), "--out", str(tmp_path / "one"))
    assert release(home, "score", CANCER, *one).exit_code == 0
    assert list(outputs(tmp_path / "one")) == ["part-1.00000.parquet"]


def test_input_and_outputs_may_be_on_s3(release: Command, home: Path, tmp_path: Path) -> None:
    data_set(tmp_path / "in", rows_of(CANCER, 100))
    assert release(home, "score", CANCER, "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out")).exit_code == 0
    with running_s3(tmp_path / "s3") as server:
        client = server.client()
        client.create_bucket(Bucket="lake")
        client.upload_file(str(tmp_path / "in" / "part-0.parquet"), "lake", "customers/part-0.parquet")
        arguments = ("score", CANCER, "--in", "s3://lake/customers/", "--out", "s3://lake/scores", "--json")
        first, again = (release(home, *arguments, **server.environment) for _ in range(2))
        assert first.exit_code == 0, first.err
        assert (first.json["partitions"]["scored"], again.json["partitions"]["kept"]) == (3, 3)
        for group in range(3):
            name = f"part-0.{group:05d}.parquet"
            client.download_file("lake", f"scores/{name}", str(tmp_path / name))
            assert pq.read_table(tmp_path / name).equals(pq.read_table(tmp_path / "out" / name))


# Again


@pytest.fixture
def scored(release: Command, home: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A data set of two files with two partitions each, and its outputs."""
    source = data_set(tmp_path / "in", rows_of(CANCER, 80), rows_of(CANCER, 80))
    assert release(home, "score", CANCER, "--in", str(source), "--out", str(tmp_path / "out")).exit_code == 0
    return source, tmp_path / "out"


def score_again(release: Command, home: Path, folders: tuple[Path, Path], *more: str) -> dict[str, int]:
    done = release(home, "score", CANCER, "--in", str(folders[0]), "--out", str(folders[1]), "--json", *more)
    assert done.exit_code == 0, done.err
    return dict(done.json["partitions"])


def test_what_is_finished_is_not_done_again(release: Command, home: Path, scored: tuple[Path, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in scored[1].iterdir()}
    (scored[1] / "part-1.00000.parquet").unlink()
    (scored[1] / "part-1.00001.parquet").write_bytes(b"half of a fi")
    assert score_again(release, home, scored) == {"scored": 2, "kept": 2, "failed": 0}
    after = {path: path.stat().st_mtime_ns for path in scored[1].iterdir()}
    assert {path.name for path in after if after[path] == before[path]} == {
        "part-0.00000.parquet",
        "part-0.00001.parquet",
    }


def test_a_changed_input_is_scored_anew_even_if_its_file_looks_as_before(
    release: Command, home: Path, scored: tuple[Path, Path]
) -> None:
    file = scored[0] / "part-1.parquet"
    before, times = pq.read_table(file), file.stat()
    frame = before.to_pandas()
    frame.loc[50, "mean_radius"] = np.nextafter(frame.loc[50, "mean_radius"], np.inf)  # the second row group
    frame.to_parquet(file, row_group_size=40)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert score_again(release, home, scored) == {"scored": 1, "kept": 3, "failed": 0}
    frame["row_id"] += 1  # the model does not take it
    frame.to_parquet(file, row_group_size=40)
    assert score_again(release, home, scored) == {"scored": 0, "kept": 4, "failed": 0}
    assert score_again(release, home, scored, "--keep", "row_id") == {"scored": 4, "kept": 0, "failed": 0}


def test_outputs_of_no_partition_are_named_and_left_alone(
    release: Command, home: Path, scored: tuple[Path, Path]
) -> None:
    (scored[0] / "part-1.parquet").unlink()
    done = release(home, "score", CANCER, "--in", str(scored[0]), "--out", str(scored[1]), "--json")
    assert done.json["strange"] == [str(scored[1] / f"part-1.0000{group}.parquet") for group in range(2)]
    assert (scored[1] / "part-1.00000.parquet").exists()


# What is wrong


def test_each_bad_row_is_named_and_the_other_partitions_go_on(release: Command, home: Path, tmp_path: Path) -> None:
    good, infinite, text = rows_of(CANCER, 40), rows_of(CANCER, 80), rows_of(CANCER, 40)
    infinite.loc[57, "mean_area"] = np.inf
    text["mean_radius"] = text["mean_radius"].astype(str)
    source = data_set(tmp_path / "in", good, infinite, text)
    done = release(home, "score", CANCER, "--in", str(source), "--out", str(tmp_path / "out"))
    assert done.exit_code == 3
    assert "2 of 4 partitions have no scores" in done.err
    assert "part-1.parquet, row group 1: row 57, 'mean_area': is not finite" in done.err
    assert "part-2.parquet, row group 0: row 0, 'mean_radius': is not a number" in done.err
    assert list(outputs(tmp_path / "out")) == ["part-0.00000.parquet", "part-1.00000.parquet"]
    assert [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_the_same_bad_row_is_refused_by_the_server_with_the_same_words(
    release: Command, home: Path, served: str, tmp_path: Path
) -> None:
    frame = rows_of(CANCER, 3).drop(columns="row_id")
    frame.loc[2, "mean_area"] = np.inf
    source = data_set(tmp_path / "in", frame)
    said = release(home, "score", CANCER, "--in", str(source), "--out", str(tmp_path / "out"), "--json").json
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    answer = httpx.post(
        f"{served}/v1/models/{CANCER}/predict", content=bytes(sink.getvalue()), headers={"content-type": STREAM}
    )
    assert answer.status_code == 422
    assert said["problems"] == [f"{source / 'part-0.parquet'}, row group 0: {answer.json()['detail']}"]


def test_a_column_that_is_missing_is_named(release: Command, home: Path, tmp_path: Path) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 5).drop(columns="mean_area"))
    folders = ("--in", str(source), "--out", str(tmp_path / "out"))
    done = release(home, "score", CANCER, *folders)
    assert done.exit_code == 3
    assert "there is no 'mean_area'" in done.err
    absent = release(home, "score", CANCER, *folders, "--keep", "customer")
    assert "column 'customer': there is no such column to keep" in absent.err


def test_what_is_no_parquet_is_named(release: Command, home: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    nothing = release(home, "score", CANCER, "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert (nothing.exit_code, "there is no Parquet file" in nothing.err) == (3, True)
    (tmp_path / "in" / "a.parquet").write_text("no")
    broken = release(home, "score", CANCER, "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"))
    assert (broken.exit_code, "a.parquet: cannot be read as Parquet" in broken.err) == (3, True)


@pytest.mark.parametrize(("source", "target"), [("in", "in"), ("in", "in/out"), ("in/deep", "in")])
def test_input_and_outputs_lie_apart(release: Command, home: Path, tmp_path: Path, source: str, target: str) -> None:
    done = release(home, "score", CANCER, "--in", str(tmp_path / source), "--out", str(tmp_path / target))
    assert (done.exit_code, "lie in one another" in done.err) == (5, True)


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(
    ("model", "version", "exit_code", "said"),
    [
        (CANCER, "2", 7, "has no release.certificate"),
        (CANCER, "9", 5, "9"),
        ("flight_delay", None, 5, "no version of 'flight_delay' is in Production"),
    ],
)
def test_only_a_version_with_a_certificate_of_production_scores(
    release: Command, home: Path, tmp_path: Path, model: str, version: str | None, exit_code: int, said: str
) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 5))
    more = () if version is None else ("--version", version)
    done = release(home, "score", model, "--in", str(source), "--out", str(tmp_path / "out"), *more)
    assert (done.exit_code, said in done.err) == (exit_code, True), done.err
    assert outputs(tmp_path / "out") == {}


def test_a_version_whose_files_were_changed_scores_nothing(tmp_path: Path, release: Command) -> None:
    changed = tmp_path / "home"
    put_into_production(release, changed, DIABETES)
    for file in (changed / "artifacts").rglob("model.onnx"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    source = data_set(tmp_path / "in", rows_of(DIABETES, 5))
    done = release(changed, "score", DIABETES, "--in", str(source), "--out", str(tmp_path / "out"))
    assert done.exit_code == 7, done.err
    assert outputs(tmp_path / "out") == {}


def test_a_process_that_is_killed_costs_its_partition_only(home: Path, tmp_path: Path) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 80))
    first, second = partitions_of(DataSet(source=str(source), target=str(tmp_path / "out")))
    with open_home(home):
        scorer = scorer_here(Order(model=CANCER))
        scorer.open()
        try:
            (pid,) = scoring_processes()
            os.kill(pid, signal.SIGKILL)
            lost = scorer.score(first)
            assert (lost.state, "ended with code -9" in lost.problem) == (State.FAILED, True)
            assert scorer.score(second).state is State.SCORED
            assert scorer.score(first).state is State.SCORED
        finally:
            scorer.close()
    assert scoring_processes() == []


def scoring_processes() -> list[int]:
    """Returns the ids of the children of this process that score."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if b"serving.batch" in Path(f"/proc/{pid}/cmdline").read_bytes()]


# Elsewhere


def test_workers_of_a_dask_cluster_write_the_same_bytes(release: Command, home: Path, tmp_path: Path) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 200), rows_of(CANCER, 70))
    here = ("--in", str(source), "--out", str(tmp_path / "here"), "--keep", "row_id")
    there = ("--in", str(source), "--out", str(tmp_path / "there"), "--keep", "row_id")
    assert release(home, "score", CANCER, *here).exit_code == 0
    with running_cluster(tmp_path / "cluster", environment_of(home)) as scheduler:
        done = release(home, "score", CANCER, *there, "--scheduler", scheduler, "--json")
        assert done.exit_code == 0, done.err
        assert done.json["partitions"] == {"scored": 7, "kept": 0, "failed": 0}
    assert outputs(tmp_path / "there") == outputs(tmp_path / "here")
    assert len(outputs(tmp_path / "there")) == 7


def test_a_worker_that_finds_another_version_scores_nothing(release: Command, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert release(other, "run", CANCER).exit_code == 0  # registered, signed by other keys, never promoted
    source = data_set(tmp_path / "in", rows_of(CANCER, 40))
    arguments = ("score", CANCER, "--in", str(source), "--out", str(tmp_path / "out"))
    with running_cluster(tmp_path / "cluster", environment_of(other), n_workers=1) as scheduler:
        done = release(home, *arguments, "--scheduler", scheduler)
    assert done.exit_code == 3
    assert outputs(tmp_path / "out") == {}


def test_a_scheduler_that_does_not_answer_is_named(release: Command, home: Path, tmp_path: Path) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 5))
    address = f"tcp://127.0.0.1:{free_port()}"
    arguments = ("score", CANCER, "--in", str(source), "--out", str(tmp_path / "out"), "--scheduler", address)
    done = release(home, *arguments)
    assert done.exit_code == 6
    assert f"the Dask scheduler {address} does not answer" in done.err


def test_in_dagster_it_is_an_asset_that_is_launched_with_its_addresses(home: Path, tmp_path: Path) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 80))
    config = {"source": str(source), "target": str(tmp_path / "out"), "keep": ["row_id"]}
    with open_home(home) as opened:
        job = opened.definitions(example(CANCER)).resolve_job_def(f"score_{CANCER}")
        done = job.execute_in_process(
            run_config={"ops": {f"{CANCER}__batch_scores": {"config": config}}}, instance=opened.instance
        )
        made = opened.materialization(example(CANCER), "batch_scores")
        assert done.success
        assert made.metadata["dagster/row_count"].value == 80
        assert made.metadata["version"].value == "1"
        assert made.metadata["partitions_scored"].value == 2
        refused = job.execute_in_process(
            run_config={"ops": {f"{CANCER}__batch_scores": {"config": config | {"source": str(tmp_path / "no")}}}},
            instance=opened.instance,
            raise_on_error=False,
        )
        assert "there is no Parquet file" in why(refused)
    assert len(outputs(tmp_path / "out")) == 2


def test_no_two_partitions_share_an_output(tmp_path: Path) -> None:
    source = data_set(tmp_path / "in", rows_of(CANCER, 80))
    (source / "part-0.00001.parquet").write_bytes((source / "part-0.parquet").read_bytes())
    found = partitions_of(DataSet(source=str(source), target="s3://lake/out/"))
    targets = [partition.target for partition in found]
    assert len(set(targets)) == len(targets) == 4
    assert all(target.startswith("s3://lake/out/part-0") for target in targets)
