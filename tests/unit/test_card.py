"""A model card shows what is recorded and trusts no text; the bill of materials is valid CycloneDX."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from release_platform.definitions import EXAMPLES
from release_platform.domain.card import ModelCard, card_states
from release_platform.domain.ledger import LedgerRow
from release_platform.domain.lifecycle import Move
from release_platform.domain.policy import PromotionRequest, RequestState
from release_platform.pipeline.bom import bom
from release_platform.pipeline.card import card_html, card_markdown
from release_platform.project import SPEC, parse_spec, read_documents
from tests.unit.test_ledger import rows_of
from tests.unit.test_lineage import LINEAGE
from tests.unit.test_policy import REQUEST, approval
from tests.unit.test_report import REPORT, Page

LOCK = "\n".join(
    ["# made by uv", "numpy==2.4.6 \\", "    --hash=sha256:00", "Scikit_Learn[x]==1.9.1 ; python_version > '3'", ""]
)


def spec_of(example: str, **more: Any) -> Mapping[str, Any]:
    file = EXAMPLES / example / "defs.yaml"
    described = read_documents(file)[0]["attributes"] | more
    return SPEC.dump_python(parse_spec(described, file=file), mode="json")


CARD = ModelCard(lineage=LINEAGE, report=REPORT, spec=spec_of("flight_delay", limitations=["not for <b>freight</b>"]))


def bill(card: ModelCard = CARD, *, lock: str = "sha256:l") -> dict[str, Any]:
    environment = {**card.lineage.environment, "lock": lock, "version.numpy": "2.0.0"}
    of = replace(card, lineage=replace(card.lineage, environment=environment))
    return bom(of, platform_version="1", lock=LOCK, lock_digest="sha256:l")


class Reads(list[LedgerRow]):
    """Rows that count how often somebody goes through them."""

    n_reads = 0

    def __iter__(self) -> Iterator[LedgerRow]:
        self.n_reads += 1
        return super().__iter__()


class TestState:
    """While the state of a version is the same its kept card needs not be written again."""

    ROWS = rows_of((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"))
    ASKED = replace(REQUEST, model="m", version="2")

    def state(self, version: str, *rows: LedgerRow, asked: PromotionRequest = ASKED, approved: str = "") -> str:
        approvals = [approval(approved, "sha256:b")] if approved else []
        return card_states([version], rows or self.ROWS, [asked], approvals)[version]

    def test_each_share_of_the_traffic_changes_that_of_its_version_only(self) -> None:
        states = set[str]()
        moves = [(Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2")]
        for share in ((Move.CANARY_SET, "2", 0.05), (Move.CANARY_SET, "2", 0.5), (Move.CANARY_SET, "2", 0.0)):
            moves.append(share)  # type: ignore[arg-type] # a share has its weight too
            states.add(self.state("2", *rows_of(*moves)))
            assert self.state("1", *rows_of(*moves)) == self.state("1")
        assert len(states | {self.state("2")}) == 4

    def test_a_move_changes_those_that_stand_elsewhere_since(self) -> None:
        after = rows_of((Move.STAGED, "1"), (Move.PROMOTED, "1"), (Move.STAGED, "2"), (Move.PROMOTED, "2"))
        assert self.state("1", *after) != self.state("1")
        assert self.state("2", *after) != self.state("2")

    def test_a_request_its_end_and_a_bare_approval_change_that_of_its_version_only(self) -> None:
        closed = replace(self.ASKED, state=RequestState.CANCELLED, outcome="no")
        assert len({self.state("2"), self.state("2", asked=closed), self.state("2", approved="grace")}) == 3
        assert self.state("1") == self.state("1", asked=closed) == self.state("1", approved="grace")
        assert self.state("2") != self.state("2", asked=replace(self.ASKED, version="1"))

    def test_the_moves_are_read_once_for_all_versions(self) -> None:
        versions = [str(number) for number in range(1, 201)]
        rows = Reads(rows_of(*(move for one in versions for move in ((Move.STAGED, one), (Move.PROMOTED, one)))))
        assert len(set(card_states(versions, rows, [], []).values())) == 200
        assert rows.n_reads == 1


class TestCard:
    def test_it_has_a_part_for_each_thing_that_is_recorded(self) -> None:
        text = card_markdown(CARD)
        for title in (
            *(
                "What it is",
                "Intended use and limits",
                "Data",
                "Ranges of the data",
                "Metrics",
                "Slices of region",
                "Gates at registration",
            ),
            *("Compared with", "Code and surroundings", "Moves", "Requests and approvals"),
        ):
            assert f"## {title}\n" in text
        assert "| roc_auc | 0.9123 | 0.9 to 0.92 |" in text
        assert "| this version | Production version 7 |" in text
        assert CARD.lineage.registration.digest in text

    def test_who_asked_and_who_approved_stand_in_the_order_of_time(self) -> None:
        text = card_markdown(CARD)
        assert text.index("| asked | ada |") < text.index("| approved, valid | grace |")

    def test_limits_are_what_the_team_says_and_what_the_slices_show(self) -> None:
        assert CARD.limits[0] == "not for <b>freight</b>"
        thin = replace(CARD, report=replace(REPORT, slices={"origin": REPORT.slices["region"]}))
        assert "origin=<north & south>: 12 held-out rows, too few to be judged" in thin.limits

    def test_the_range_of_each_column_but_the_target_is_told(self) -> None:
        assert CARD.ranges["origin"] == "EWR, JFK, LGA only"
        assert CARD.ranges["distance"] == "1 to 6000"
        assert CARD.spec["target"]["column"] not in CARD.ranges
        assert "| distance | 1 to 6000 |" in card_markdown(CARD)
        considered = bill()["metadata"]["component"]["modelCard"]["considerations"]
        assert "distance: the data it was trained on held 1 to 6000" in considered["technicalLimitations"]
        assert len(replace(CARD, spec=spec_of("digits")).ranges) == 64

    def test_no_text_of_the_data_becomes_markup_in_either_form(self) -> None:
        page = Page(card_html(CARD))
        assert not page.open
        assert not page.all("script")
        assert not page.all("b")
        assert "not for <b>freight</b>" in page.text
        assert "<north & south>" in page.text
        assert "not for &lt;b&gt;freight&lt;/b&gt;" in card_markdown(CARD)
        assert "<script>" not in card_markdown(CARD)

    def test_the_page_needs_nothing_from_outside(self) -> None:
        page = Page(card_html(CARD))
        assert not [tag for tag, of in page.tags if tag in {"link", "img", "iframe"} or "src" in of]


class TestBill:
    @pytest.mark.parametrize("example", ["flight_delay", "breast_cancer", "digits", "diabetes"])
    def test_it_is_valid_by_the_schema_of_cyclonedx(self, example: str) -> None:
        text = json.dumps(bill(replace(CARD, spec=spec_of(example))))
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None

    def test_the_model_names_its_data_and_its_libraries(self) -> None:
        found = bill()
        refs = {part["bom-ref"]: part for part in found["components"]}
        assert {"pkg:pypi/numpy@2.4.6", "pkg:pypi/scikit-learn@1.9.1"} <= set(refs)
        data = [part for part in found["components"] if part["type"] == "data"]
        assert [part["version"] for part in data] == [s.digest for _, s in sorted(LINEAGE.data.items())]
        (of_model, *_) = found["dependencies"]
        assert set(of_model["dependsOn"]) == set(refs)

    def test_metrics_are_the_quantitative_analysis_with_slice_and_interval(self) -> None:
        metrics = bill()["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
        assert {
            "type": "roc_auc",
            "value": "0.91234",
            "confidenceInterval": {"lowerBound": "0.9", "upperBound": "0.92"},
        } in metrics
        assert {"type": "roc_auc", "value": "0.7", "slice": "region=<north & south>"} in metrics
        assert not [metric for metric in metrics if metric["type"] in {"recall", "latency_p99_ms"}]

    def test_of_a_version_with_another_lock_file_only_what_was_recorded_is_listed(self) -> None:
        found = bill(lock="sha256:other")
        libraries = [part["bom-ref"] for part in found["components"] if part["type"] == "library"]
        assert "pkg:pypi/numpy@2.0.0" in libraries
        assert "pkg:pypi/numpy@2.4.6" not in libraries
        assert {"name": "release:libraries", "value": "those that were recorded"} in found["properties"]

    def test_it_is_the_same_bill_whenever_it_is_written(self) -> None:
        assert bill() == bill()
        assert (
            bill()["serialNumber"]
            != bill(replace(CARD, lineage=replace(LINEAGE, registration=replace(LINEAGE.registration, version="3"))))[
                "serialNumber"
            ]
        )
