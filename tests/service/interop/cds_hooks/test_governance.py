"""Cards are few, grouped, above their operating points, not repeated, and honest about limits."""

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.interop.cds_hooks.cards import MAX_SUMMARY, summary
from service.interop.cds_hooks.governance import Finding, judge, task_groups
from service.interop.cds_hooks.operating_points import OperatingPoint, operating_points
from service.interop.cds_hooks.urgency import _CRITICAL, _INFO
from tests.service.interop.cds_hooks.conftest import FULL, RESULT, tasks_of
from tests.support.inputs import fhir_bundles as make
from tests.support.inputs import hook_calls
from tests.support.servers.prometheus import scraped
from tests.support.servers.refusals import assert_refused

FIGURES = {"threshold": 0.1, "sensitivity": 0.41, "ppv": 0.36, "alerts_per_100": 4.9}


@pytest.mark.parametrize("limit", [1, 2, 40])
def test_a_response_has_at_most_the_set_number_of_cards(serve, engine, call, limit):
    service = serve(engine, cds_cards=limit)
    body = service.client.post("/cds-services/m3h-patient-view", json=call).json()
    over = tasks_of(body, "over_limit")
    assert len(body["cards"]) <= limit
    assert bool(over) == (limit < 3)
    if over:  # the user reads which tasks have no card
        assert len(body["cards"]) == limit
        assert all("without a card: " in card["detail"] for card in body["cards"])


def test_a_task_gets_a_card_from_its_own_operating_point_on(with_decisions, call):
    low = with_decisions({"sepsis": {"alerts_5": FIGURES | {"threshold": 0.0001}}})
    assert tasks_of(low.cards(call)) == ["sepsis"]
    high = with_decisions({"sepsis": {"alerts_5": FIGURES | {"threshold": 0.9999}}})
    response = high.cards(call)
    assert response["cards"] == []
    result = response["extension"][RESULT]
    assert result["predicted"] == 1
    assert "septic_shock" in result["no_operating_point"]


def test_the_setting_selects_the_operating_point(with_decisions, call):
    points = {
        "alerts_5": FIGURES | {"threshold": 0.9999},
        "alerts_10": FIGURES | {"threshold": 0.0001},
    }
    assert tasks_of(with_decisions({"sepsis": points}).cards(call)) == []
    more = with_decisions({"sepsis": points}, cds_point="alerts_10")
    assert tasks_of(more.cards(call)) == ["sepsis"]


def test_a_bundle_without_operating_points_has_no_services(with_decisions, call):
    cds = with_decisions({"sepsis": {"alerts_5": FIGURES | {"threshold": None}}})
    assert cds.service.client.get("/cds-services").json() == {"services": []}
    assert_refused(cds.service, cds.post(call), 404)


def test_a_card_has_the_figures_of_its_task(with_decisions, call):
    cds = with_decisions({"sepsis": {"alerts_5": FIGURES}})
    (card,) = cds.cards(call)["cards"]
    native = cds.service.client.post("/fhir/$predict", json=FULL).json()
    (outcome,) = [
        entry["resource"]
        for entry in native["entry"]
        if entry["resource"].get("code", {}).get("text") == "Sepsis"
    ]
    probability = outcome["prediction"][0]["probabilityDecimal"]
    detail = card["detail"]
    assert f"**{100 * probability:.0f} %**" in detail
    assert "| 10 % |" in detail  # the threshold
    assert "sensitivity 41 %" in detail
    assert "positive predictive value 36 %" in detail
    assert "4.9 alerts per 100 patients" in detail
    assert re.search(r"\| [\d.]+ % to [\d.]+ % \| [\d.]+ % \|", detail)  # interval and prevalence
    assert "Measurements: " in detail
    assert "Treatments: norepinephrine" in detail
    assert "Not recalibrated for this hospital" in detail
    assert "not a diagnosis" in detail
    assert card["indicator"] == "critical"


def test_a_threshold_that_was_not_measured_is_stated(cds, call):
    for card in cds.cards(call)["cards"]:
        assert "were not measured" in card["detail"]


def test_a_recalibrated_bundle_names_its_patients(serve, engine, changed_bundle, call):
    from service.runtime.bundle import Bundle
    from service.runtime.engine import Engine

    def edit(manifest: dict[str, Any], _: Any) -> None:
        manifest["recalibration"] = {
            "cohort": "st_elsewhere",
            "patients": 120,
            "source": "0" * 64,
            "digest": "0" * 64,
            "bundle": "0" * 64,
            "shift": {},
        }

    changed = Engine(Bundle.load(changed_bundle(edit), "cpu", threads=1))
    changed.replay_golden()
    body = serve(changed).client.post("/cds-services/m3h-patient-view", json=call).json()
    for card in body["cards"]:
        assert "Recalibrated with 120 patients of st\\_elsewhere" in card["detail"]
        assert "Not recalibrated" not in card["detail"]


def test_sepsis_and_septic_shock_share_a_card(cds, call):
    cards = cds.cards(call)["cards"]
    (card,) = [card for card in cards if card["source"]["topic"]["code"] == "sepsis"]
    assert "Sepsis" in card["summary"]
    assert "Septic shock" in card["summary"]
    assert card["indicator"] == "critical"
    assert cards[0] == card  # the most urgent first


# ------------------------------------------------------------------------------------ repetition


def test_an_unchanged_card_is_not_repeated(cds, call):
    first = cds.cards(call)
    second = cds.cards(call)
    assert second["cards"] == []
    assert second["extension"][RESULT]["predicted"] == first["extension"][RESULT]["predicted"]
    assert set(tasks_of(first)) <= set(tasks_of(second, "unchanged"))


def test_a_changed_card_is_repeated(cds, call):
    shown = tasks_of(cds.cards(call))
    assert "sepsis" in shown
    milder = hook_calls.call(
        hook_calls.with_patient_id(
            make.bundle(
                make.stay(),
                make.heart_rate(112, 1),
                make.observation("32693-4", 2.2, "mmol/L", 2),
                make.note("Sepsis from pneumonia.", 4),
            )
        )
    )
    changed = cds.cards(milder)
    assert "sepsis" in tasks_of(changed)


@pytest.mark.parametrize(
    "context",
    [
        {"userId": "Practitioner/other"},
        {"encounterId": "next"},
        {"patientId": "p-other"},
    ],
    ids=lambda context: next(iter(context)),
)
def test_another_user_stay_or_patient_gets_the_card(cds, call, context):
    shown = tasks_of(cds.cards(call))
    patient_id = context.get("patientId", hook_calls.PATIENT_ID)
    other = hook_calls.call(hook_calls.with_patient_id(make.full_stay("")[0], patient_id))
    other["prefetch"]["media"] = None
    other["context"] |= context
    other["prefetch"]["encounter"] = call["prefetch"]["encounter"]
    if "patientId" in context:
        other["prefetch"]["encounter"] = None
    assert shown
    assert tasks_of(cds.cards(other), "unchanged") == []


def test_the_time_of_repetition_can_be_zero(repeating, call):
    assert tasks_of(repeating.cards(call)) == tasks_of(repeating.cards(call))


def test_no_id_of_the_patient_or_user_is_logged_or_counted(cds, call):
    cds.cards(call)
    written = cds.service.written()
    assert hook_calls.PATIENT_ID not in written
    assert hook_calls.USER not in written


# ------------------------------------------------------------------------------------ never silent


def test_a_child_is_412_and_never_an_empty_list(cds, call):
    call["prefetch"]["patient"]["birthDate"] = "2022-03-01"
    problem = assert_refused(cds.service, cds.post(call), 412, ("/prefetch", "abstained"))
    assert "adults" in problem["errors"][0]["detail"]


def test_a_record_without_recent_data_is_412(cds, call):
    for key in ("observations", "medications", "procedures", "reports", "documents", "media"):
        call["prefetch"][key] = None
    expected = ("/prefetch", "no_recent_data")
    assert_refused(cds.service, cds.post(call), 412, expected)


def test_one_page_of_a_search_is_stated(cds, call):
    call["prefetch"]["observations"]["link"] = [{"relation": "next", "url": "https://ehr/next"}]
    response = cds.cards(call)
    assert response["extension"][RESULT]["incomplete"] == ["observations"]
    assert all("first page" in card["detail"] for card in response["cards"])


def test_the_metrics_count_the_tasks_of_cards(cds, call):
    shown = tasks_of(cds.cards(call))
    cds.cards(call)
    text = cds.service.client.get("/metrics").text
    for task in shown:
        for outcome in ("shown", "unchanged"):
            name = f'm3h_cds_cards_total{{outcome="{outcome}",task="{task}"}}'
            assert scraped(text, name) == 1


# ------------------------------------------------------------------------------------ parts


def test_every_binary_task_is_in_one_group_with_its_superset_first(bundle):
    groups = task_groups(bundle.manifest)
    names = [served.task.name for group in groups for served in group.tasks]
    binary = [t.task.name for t in bundle.manifest.tasks if t.task.kind == "binary"]
    assert sorted(names) == sorted(binary)
    for group in groups:
        first, *rest = [served.task for served in group.tasks]
        assert all(task.subset_of == first.name for task in rest)
    assert [group.number for group in groups] == [*range(len(groups))]


def test_every_listed_urgency_is_a_task(bundle):
    names = {served.task.name for served in bundle.manifest.tasks}
    assert names >= _CRITICAL
    assert names >= _INFO
    assert not _CRITICAL & _INFO


@given(st.data())
def test_a_task_is_above_its_point_or_not_shown(bundle, data):
    manifest = bundle.manifest
    points = operating_points(manifest, "alerts_5")
    predictions = [
        {"task": served.task.name, "probability": data.draw(st.floats(0, 1))}
        for served in manifest.tasks
    ]
    judgement = judge(predictions, task_groups(manifest), points)
    shown = {f.name for content in judgement.contents for f in content.findings}
    expected = {
        p["task"]
        for p in predictions
        if p["task"] in points and p["probability"] >= points[p["task"]].threshold
    }
    assert shown == expected
    assert judgement.predicted == len(points)


@given(st.integers(1, 16), st.text(min_size=1, max_size=300), st.floats(0, 1))
def test_any_summary_is_one_line_of_fewer_than_140_characters(bundle, count, display, probability):
    served = bundle.manifest.tasks[0]
    task = served.task.model_copy(update={"display": display})
    named = served.model_copy(update={"task": task})
    finding = Finding(named, {"probability": probability}, OperatingPoint(0.0))
    text = summary([finding] * count)
    assert 0 < len(text) <= MAX_SUMMARY
    assert "\n" not in text


def test_a_card_is_not_changed_by_the_form_of_the_call(cds, call):
    """A Patient that was searched for equals a Patient that was read."""
    shown = tasks_of(cds.cards(call))
    other = copy.deepcopy(call)
    other["prefetch"]["patient"] = hook_calls.searchset(call["prefetch"]["patient"])
    assert set(shown) <= set(tasks_of(cds.cards(other), "unchanged"))
