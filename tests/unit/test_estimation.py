"""Quality without labels: right where probabilities are calibrated, and found out where they are not."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, precision_score, recall_score, roc_auc_score

from release_platform.domain.estimation import (
    Calibration,
    Estimate,
    Quality,
    Tracked,
    calibrated,
    estimate_accuracy,
    estimate_binary,
    real_quality,
    tracked,
)

AS_SAID = Calibration(said=(0.0, 1.0), came=(0.0, 1.0))


def rows(seed: int, n: int = 3000, *, sharpness: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities and the labels that come of them."""
    rng = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-sharpness * rng.normal(size=n)))
    return scores, rng.random(n) < scores


def test_real_quality_is_what_scikit_learn_measures():
    scores, labels = rows(1)
    scores = np.round(scores, 2)  # with ties
    answers, found = scores >= 0.5, real_quality(scores, labels)

    assert found[Quality.ACCURACY] == pytest.approx(accuracy_score(labels, answers))
    assert found[Quality.PRECISION] == pytest.approx(precision_score(labels, answers))
    assert found[Quality.RECALL] == pytest.approx(recall_score(labels, answers))
    assert found[Quality.ROC_AUC] == pytest.approx(roc_auc_score(labels, scores))
    assert found[Quality.BRIER] == pytest.approx(brier_score_loss(labels, scores))
    assert found[Quality.LOG_LOSS] == pytest.approx(log_loss(labels, np.clip(scores, 1e-12, 1 - 1e-12)))


@pytest.mark.parametrize("quality", list(Quality))
def test_the_estimate_of_calibrated_rows_is_unbiased_and_its_interval_holds_19_times_of_20(quality):
    pairs = []
    for seed in range(60):
        scores, labels = rows(seed, 500, sharpness=0.5 + seed / 30)
        pairs.append(tracked(estimate_binary(scores, AS_SAID), real_quality(scores, labels))[quality])
    errors = np.array([pair.error for pair in pairs])

    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(len(errors))
    assert 0.85 <= np.mean([pair.held for pair in pairs]) <= 1.0


def test_rows_that_became_harder_are_seen_without_a_label():
    easy, _ = rows(2, sharpness=3.0)
    hard, labels = rows(3, sharpness=0.7)
    before, now = estimate_binary(easy, AS_SAID), estimate_binary(hard, AS_SAID)

    assert before[Quality.ROC_AUC].lower > now[Quality.ROC_AUC].upper
    assert tracked(now, real_quality(hard, labels))[Quality.ROC_AUC].held


def test_a_world_that_changed_is_not_seen_before_labels_come_and_then_found_out():
    scores, labels = rows(4)
    turned = np.where(np.random.default_rng(5).random(len(labels)) < 0.3, ~labels, labels)
    estimates = estimate_binary(scores, AS_SAID)

    assert all(one.held for one in tracked(estimates, real_quality(scores, labels)).values())
    assert tracked(estimates, real_quality(scores, turned))[Quality.ROC_AUC].held is False


def test_a_model_that_is_too_sure_of_itself_is_read_by_its_calibration():
    truth, labels = rows(6, 20_000)
    logits = 2.5 * np.log(truth / (1 - truth))
    sure = 1 / (1 + np.exp(-logits))
    read = calibrated(sure[:10_000], labels[:10_000])
    assert read is not None
    naive = estimate_binary(sure[10_000:], AS_SAID)[Quality.ACCURACY]
    found = estimate_binary(sure[10_000:], read)[Quality.ACCURACY]
    real = real_quality(sure[10_000:], labels[10_000:])[Quality.ACCURACY]

    assert naive.lower > real + 0.02
    assert found.lower - 0.01 <= real <= found.upper + 0.01


def test_many_rows_have_the_interval_of_many_rows():
    few, _ = rows(7, 20_000)
    many, labels = rows(8, 80_000)
    narrow, wide = (estimate_binary(one, AS_SAID)[Quality.ROC_AUC] for one in (many, few))

    assert (narrow.upper - narrow.lower) / (wide.upper - wide.lower) == pytest.approx(0.5, rel=0.25)
    assert narrow.lower - 0.002 <= real_quality(many, labels)[Quality.ROC_AUC] <= narrow.upper + 0.002


def test_without_a_positive_answer_precision_is_undefined():
    scores, labels = np.full(100, 0.1), np.arange(100) < 10
    found = tracked(estimate_binary(scores, AS_SAID), real_quality(scores, labels))

    assert found[Quality.PRECISION] == Tracked(estimate=Estimate(value=None), real=None)
    assert found[Quality.PRECISION].error is None
    assert found[Quality.PRECISION].held is None


def test_few_rows_are_no_ground_for_an_estimate():
    scores, labels = rows(9, 29)

    assert estimate_binary(scores, AS_SAID) == {}
    assert estimate_accuracy(scores, AS_SAID) == Estimate(value=None)
    assert calibrated(scores, labels) is None
    assert real_quality(scores[:0], labels[:0]) == dict.fromkeys(Quality)


def test_the_accuracy_of_several_classes_is_the_mean_chance_to_be_right():
    chances = np.random.default_rng(10).uniform(0.4, 1.0, size=5000)
    right = np.random.default_rng(11).random(5000) < chances
    found = estimate_accuracy(chances, AS_SAID)

    assert found.value == pytest.approx(chances.mean())
    assert found.lower <= right.mean() <= found.upper


def test_a_calibration_comes_back_from_json_and_never_falls():
    scores, labels = rows(12)
    found = calibrated(scores, labels)
    assert found is not None

    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert (np.diff(found.apply(np.linspace(0, 1, 200))) >= 0).all()
    assert sum(found.rows) == len(scores)
    with pytest.raises(ValueError, match="points"):
        Calibration(said=(0.1, 0.2), came=(0.0, 1.0), rows=(3,))
    with pytest.raises(ValueError, match="ascends"):
        Calibration(said=(0.1, 0.1), came=(0.0, 1.0))


def test_the_interval_holds_though_the_calibration_is_learned_from_few_rows():
    """Of 20 models that are too sure: the real value is in the interval of each quality about 19 times of 20."""
    held_out, held = 200, dict[Quality, list[bool]]((quality, []) for quality in Quality)
    for seed in range(20):
        truth, labels = rows(seed, held_out + 1500)
        said = 1 / (1 + ((1 - truth) / truth) ** 1.3)
        read = calibrated(said[:held_out], labels[:held_out])
        assert read is not None
        real = real_quality(said[held_out:], labels[held_out:])
        for quality, found in tracked(estimate_binary(said[held_out:], read), real).items():
            held[quality].append(bool(found.held))

    assert min(np.mean(each) for each in held.values()) >= 0.75
    assert np.mean([np.mean(each) for each in held.values()]) >= 0.88


def test_many_recorded_rows_do_not_hide_that_few_were_held_out():
    truth, labels = rows(13, 20_200)
    read = calibrated(truth[:200], labels[:200])
    assert read is not None
    doubtful, sure = (estimate_binary(truth[200:], one)[Quality.BRIER] for one in (read, AS_SAID))

    assert doubtful.upper - doubtful.lower > 3 * (sure.upper - sure.lower)


def test_a_calibration_that_saw_only_one_outcome_is_in_doubt_too():
    found = Calibration(said=(0.2, 0.8), came=(0.0, 1.0), rows=(10, 10))
    drawn = [found.drawn(np.random.default_rng(seed)).came for seed in range(50)]

    assert 0.005 < np.mean([first for first, _ in drawn]) < 0.1
    assert all(first <= last for first, last in drawn)
    assert AS_SAID.drawn(np.random.default_rng(1)) is AS_SAID
