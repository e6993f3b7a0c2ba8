"""Defects in judging live traffic: what is counted and what passes, the canary's share, the shadow's pairs."""

from tests.mutants.defect import Defect

_JUDGE = "release_platform/domain/judge.py"
_SEQUENTIAL = "release_platform/domain/sequential.py"
_METRICS = "release_platform/domain/live_metrics.py"
_OBSERVATIONS = "serving/observations.py"
_SHADOW = "serving/shadow.py"
_ROUTING = "serving/routing.py"
_ANSWERING = "serving/answering.py"
_OF_JUDGE = "tests/unit/test_judge.py::"
_OF_SEQUENTIAL = "tests/unit/test_sequential.py::"
_OF_ROUTING = "tests/unit/test_serving_routing.py::"
_OF_SHADOW = "tests/unit/test_serving_shadow.py::"
_OF_WINDOWS = "tests/integration/test_serving_windows.py::"
_OF_OBSERVATIONS = "tests/unit/test_serving_observations.py::"

DEFECTS = (
    Defect(
        name="a gate without traffic passes",
        file=_JUDGE,
        old='return _assessment(gate, Verdict.INCONCLUSIVE, f"{nothing}, so it cannot pass", None, (0.0, 0.0), 0)',
        new='return _assessment(gate, Verdict.PASSED, f"{nothing}, so nothing is wrong", None, (0.0, 0.0), 0)',
        tests=(
            f"{_OF_JUDGE}test_no_windows_never_pass",
            f"{_OF_JUDGE}test_one_arm_alone_never_passes",
        ),
    ),
    Defect(
        name="a gate passes on windows that stopped coming",
        file=_JUDGE,
        old="if silent >= STALE_MINUTES:",
        new="if silent >= STALE_MINUTES and not whole:",
        tests=(f"{_OF_JUDGE}test_windows_that_stopped_coming_never_pass",),
    ),
    Defect(
        name="a gate passes however many minutes are missing",
        file=_JUDGE,
        old="if len(missing) > MOST_HOLES * len(period):",
        new="if len(missing) >= len(period):",
        tests=(f"{_OF_JUDGE}test_too_many_holes_never_pass",),
    ),
    Defect(
        name="a version that is worse is not aborted while minutes are missing",
        file=_JUDGE,
        old="if worse >= log(1 / planned.level_worse):",
        new="if worse >= log(1 / planned.level_worse) and not missing:",
        tests=(f"{_OF_JUDGE}test_something_missing_does_not_save_a_bad_version",),
    ),
    Defect(
        name="each gate of each stage may abort falsely with the whole probability",
        file=_JUDGE,
        old="level_worse=rollout.plan.false_abort / n_tests,",
        new="level_worse=rollout.plan.false_abort,",
        tests=(f"{_OF_JUDGE}test_the_levels_of_all_blocking_gates_and_stages_add_up_to_the_stated_one",),
    ),
    Defect(
        name="one gate that passed is enough",
        file=_JUDGE,
        old="passed = bool(blocking) and all(result.passed for result in blocking)",
        new="passed = any(result.passed for result in blocking)",
        tests=(f"{_OF_JUDGE}test_a_blocking_metric_that_is_not_measured_never_passes",),
    ),
    Defect(
        name="an advisory gate aborts a rollout",
        file=_JUDGE,
        old="blocking = [one.result for one in self.found if one.result.blocking]",
        new="blocking = [one.result for one in self.found]",
        tests=(f"{_OF_JUDGE}test_an_advisory_gate_is_measured_and_never_decides",),
    ),
    Defect(
        name="a minute is judged while its windows still come in",
        file=_JUDGE,
        old="return int((at.timestamp() - SETTLE_S) // 60) - 1",
        new="return int(at.timestamp() // 60) - 1",
        tests=(f"{_OF_JUDGE}test_a_minute_is_judged_once_it_has_settled",),
    ),
    Defect(
        name="the minute in which a stage began counts for it",
        file=_JUDGE,
        old="first_minute=ceil(rollout.since.timestamp() / 60),",
        new="first_minute=int(rollout.since.timestamp() // 60),",
        tests=(f"{_OF_JUDGE}test_the_minute_in_which_a_stage_begins_does_not_count",),
    ),
    Defect(
        name="what another version did on the route counts for the candidate",
        file=_JUDGE,
        old="if (w.key.version, w.key.route) == (planned.candidate, planned.route)}",
        new="if w.key.route is planned.route}",
        tests=(f"{_OF_JUDGE}test_minutes_before_the_stage_other_models_and_other_versions_do_not_count",),
    ),
    Defect(
        name="a shadow's stage ends by its requests, not by its pairs",
        file=_JUDGE,
        old="n = sum(w.pairs.get(EVERY_SLICE, 0) if shadow else w.requests for w, _ in arms)",
        new="n = sum(w.requests for w, _ in arms)",
        tests=(f"{_OF_JUDGE}test_of_a_shadow_its_pairs_are_counted",),
    ),
    Defect(
        name="evidence that was reached is lost again",
        file=_JUDGE,
        old="return np.maximum(np.maximum.accumulate(average), 0.0)",
        new="return np.maximum(average, 0.0)",
        tests=(f"{_OF_JUDGE}test_evidence_once_reached_stays",),
    ),
    Defect(
        name="the alternatives of a window are chosen by what it shows",
        file=_SEQUENTIAL,
        old="before_n, before_k = np.cumsum(n, axis=-1) - n, np.cumsum(k, axis=-1) - k",
        new="before_n, before_k = np.cumsum(n, axis=-1), np.cumsum(k, axis=-1)",
        tests=(f"{_OF_SEQUENTIAL}test_the_expectation_is_at_most_one_wherever_the_null_is_true",),
    ),
    Defect(
        name="the quantile of a window is taken from it",
        file=_METRICS,
        old="past = np.cumsum(np.cumsum(stable, axis=0) - stable, axis=1)",
        new="past = np.cumsum(np.cumsum(stable, axis=0), axis=1)",
        tests=(f"{_OF_JUDGE}test_what_is_usual_is_taken_from_earlier_minutes",),
    ),
    Defect(
        name="predictions may fall, only not rise",
        file=_METRICS,
        old="return np.concatenate([above, _opposite(above)])",
        new="return np.concatenate([above, above])",
        tests=(f"{_OF_JUDGE}test_predictions_fail_in_both_directions",),
    ),
    Defect(
        name="where lower outcomes are better a fall fails",
        file=_METRICS,
        old="or gate.better is Direction.LOWER",
        new="or gate.better is Direction.HIGHER",
        tests=(f"{_OF_JUDGE}test_where_lower_outcomes_are_better_a_rise_fails",),
    ),
    Defect(
        name="a key is in the canary at one request and not at the next",
        file=_ROUTING,
        old="place = random.random() if key is None else place_of(canary.loaded.model, key)",
        new="place = random.random()",
        tests=(f"{_OF_ROUTING}test_a_key_is_where_its_place_is_at_each_request",),
    ),
    Defect(
        name="the same customers are first for every model",
        file=_ROUTING,
        old='digest = sha256(b"%b\\0%b" % (model.encode(), key)).digest()',
        new="digest = sha256(key + model[:0].encode()).digest()",
        tests=(f"{_OF_ROUTING}test_who_is_first_for_one_model_is_not_for_another",),
    ),
    Defect(
        name="what waits for a shadow has no bound",
        file=_SHADOW,
        old="if len(self._queue) >= self._most_waiting or self._n_bytes",
        new="if self._n_bytes",
        tests=(f"{_OF_SHADOW}test_what_does_not_fit_is_dropped_and_counted",),
    ),
    Defect(
        name="a shadow is asked after its rollout ended",
        file=_SHADOW,
        old="if standing is None or standing.loaded.version != loaded.version:",
        new="if standing is not None and standing.loaded.version != loaded.version:",
        tests=(f"{_OF_SHADOW}test_a_shadow_that_is_gone_is_not_asked_what_still_waits",),
    ),
    Defect(
        name="a shadow's failure is not counted",
        file=_OBSERVATIONS,
        old="errors = [one.error for one in reflections if one.error]",
        new="errors: list[str] = []",
        tests=(f"{_OF_OBSERVATIONS}test_what_a_shadow_failed_is_its_error_and_no_pair",),
    ),
    Defect(
        name="a pair says what the shadow's answer becomes",
        file="serving/mirroring.py",
        old="flip = find_flip(asked.beside, said(loaded.package.task, predictions))",
        new="flip = find_flip(said(loaded.package.task, predictions), asked.beside)",
        tests=("tests/integration/test_serving_shadow.py::test_pairs_are_compared_and_only_production_answers",),
    ),
    Defect(
        name="an answer that is not finite is no error",
        file=_OBSERVATIONS,
        old="if problem.status < 500 or isinstance(problem, Stopping):",
        new="if problem.status < 500 or isinstance(problem, (Stopping, NonFinitePrediction)):",
        tests=(f"{_OF_OBSERVATIONS}test_what_is_no_fault_of_the_version_is_no_error_of_it",),
    ),
    Defect(
        name="what only the version before takes is no error of the one in Production",
        file=_ANSWERING,
        old="if self._was_taken(call, body):",
        new="if self._was_taken(call, body) and call.canary is not None:",
        tests=(f"{_OF_WINDOWS}test_a_request_that_only_the_version_before_takes_is_an_error_of_the_one_in_production",),
    ),
    Defect(
        name="a refusal counts against Production's version while another is compared with it",
        file=_ANSWERING,
        old="or loaded.model in table.canary or loaded.model in table.shadow:",
        new="or loaded.model in table.canary:",
        tests=(
            f"{_OF_WINDOWS}test_while_a_version_is_judged_beside_it_no_refusal_counts_against_the_one_in_production",
        ),
    ),
)
