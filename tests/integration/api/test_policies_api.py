"""Policies over HTTP: what is taken and refused, what is shown, what callers of webhooks get."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from dev.sim.cloudapi.catalog import HVM_IMAGE, HVM_PACKAGE
from shared.measures.source import Source
from shared.state import policies
from tests.integration.api.service import NOBODY, Api, Caller, error, field_errors
from tsg_api.http.hooks import is_hook, without_token

PUSHED = {"source": "pushed", "name": "queue_length"}
TARGET = {"policy_name": "load", "kind": "target", "metric": PUSHED, "target": 60}
STEPS = {"policy_name": "steps", "kind": "step", "metric": PUSHED, "steps": [{"from": 70, "change": "+2"}, {"to": 20, "change": -1}]}
EVENINGS = {"policy_name": "evenings", "kind": "schedule", "schedule": {"cron": "0 18 * * mon-fri"}, "set": {"capacity": 2}}
HOOK = {"policy_name": "hook", "kind": "webhook", "change": "+1"}


@pytest.fixture
def group(tsg: Caller) -> dict[str, Any]:
    return tsg.make_group(4)


def path(group: Mapping[str, Any], rest: str = "") -> str:
    return f"/groups/{group['id']}/policies{rest}"


def test_a_policy_is_made_shown_changed_and_deleted(tsg: Caller, group: dict[str, Any]) -> None:
    answer = tsg("POST", path(group), TARGET)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/tsg{path(group, '/' + made['id'])}"
    assert made == {
        "id": made["id"],
        "policy_name": "load",
        "kind": "target",
        "mode": "active",
        "cooldown": {"out_seconds": 60, "in_seconds": 300},
        "metric": PUSHED,
        "target": 60.0,
        "per": "instance",
        "tolerance": 0.1,
        "stabilization": {"out_seconds": 0, "in_seconds": 300},
        "max_step": {},
        "out_until": None,
        "in_until": None,
        "failures": 0,
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
    }
    one = path(group, f"/{made['id']}")
    shown = tsg("GET", one)
    assert (shown.json(), shown.headers["ETag"]) == (made, answer.headers["ETag"])
    assert tsg("GET", one, headers={"If-None-Match": shown.headers["ETag"]}).status_code == 304
    changed = tsg("PUT", one, {**TARGET, "mode": "shadow", "target": 70})
    assert (changed.status_code, changed.json()["mode"], changed.json()["target"]) == (200, "shadow", 70.0)
    error(tsg("PUT", one, TARGET, headers={"If-Match": shown.headers["ETag"]}), 412, "PreconditionFailed")
    error(tsg("DELETE", one, headers={"If-Match": shown.headers["ETag"]}), 412, "PreconditionFailed")
    assert [found["id"] for found in tsg.ok("GET", path(group))] == [made["id"]]
    assert tsg("DELETE", one, headers={"If-Match": changed.headers["ETag"]}).status_code == 204
    error(tsg("GET", one), 404, "ResourceNotFound")
    assert tsg.ok("GET", path(group)) == []


def test_each_change_of_a_policy_is_an_activity_of_the_group(tsg: Caller, group: dict[str, Any]) -> None:
    def ask(method: str, path: str, body: object = None, *, as_request: str) -> str:
        answer = tsg(method, path, body, headers={"X-Request-Id": as_request})
        assert answer.ok, answer.text
        return f"/{answer.json()['id']}" if answer.content else ""

    tag = tsg("GET", f"/groups/{group['id']}").headers["ETag"]
    changed = {**TARGET, "policy_name": "load 2", "target": 70, "max_step": {"in": 1}}
    one = path(group, ask("POST", path(group), TARGET, as_request="first"))
    ask("PUT", one, changed, as_request="second")
    ask("PUT", one, changed, as_request="third")
    ask("DELETE", one, as_request="fourth")
    hook = path(group, ask("POST", path(group), HOOK, as_request="fifth"))
    ask("POST", f"{hook}/rotate", as_request="sixth")
    told = tsg.ok("GET", f"/groups/{group['id']}/activities?limit=6")
    what = 'policy_name "load" -> "load 2", target 60.0 -> 70.0, max_step {} -> {"in": 1}'
    assert [(one["kind"], one["description"]) for one in reversed(told)] == [
        ("TSG_POLICY_CREATE", 'policy "load" (target) was created by POST, request first'),
        ("TSG_POLICY_UPDATE", f'policy "load": {what} by PUT, request second'),
        ("TSG_POLICY_UPDATE", 'policy "load 2": begins anew by PUT, request third'),
        ("TSG_POLICY_DELETE", 'policy "load 2" was deleted by DELETE, request fourth'),
        ("TSG_POLICY_CREATE", 'policy "hook" (webhook) was created by POST, request fifth'),
        ("TSG_POLICY_UPDATE", 'policy "hook": another URL by POST, request sixth'),
    ]
    assert {(one["actor"], one["status"], one["cause"] == one["description"]) for one in told} == {(tsg.login, "success", True)}
    assert told[0]["ended_at"] == tsg.ok("GET", hook)["updated_at"], "one transaction"
    assert tsg("GET", f"/groups/{group['id']}").headers["ETag"] == tag, "the group itself is what it was"


def test_each_kind_is_given_back_as_it_was_sent(tsg: Caller, group: dict[str, Any]) -> None:
    window = {**EVENINGS, "policy_name": "window", "set": {"min_capacity": 3}, "duration_seconds": 3600, "mode": "out_only"}
    once = {**EVENINGS, "policy_name": "once", "schedule": {"at": "2026-12-24T19:00:00+01:00"}, "misfire": "skip"}
    fallback = {"after_failures": 3, "capacity": 10, "only_if_higher": True}
    target = {**TARGET, "max_step": {"out": "100%", "in": 2}, "fallback": fallback, "per": "group"}
    for sent in (EVENINGS, window, once, target, STEPS, HOOK):
        made = tsg.ok("POST", path(group), sent)
        assert {name: made[name] for name in sent if name != "schedule"} == {
            name: value for name, value in sent.items() if name != "schedule"
        }
    assert made["change"] == "+1"
    times = [one["schedule"] for one in tsg.ok("GET", path(group)) if one["kind"] == "schedule"]
    assert times == [{"cron": "0 18 * * mon-fri", "time_zone": "UTC"}] * 2 + [{"time_zone": "UTC", "at": "2026-12-24T18:00:00Z"}]


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"policy_name", "kind"}),
        ({"policy_name": "x", "kind": "magic"}, {"kind"}),
        ({"policy_name": "x", "kind": "target"}, {"metric", "target"}),
        ({**TARGET, "target": 0, "tolerance": 2, "mode": "on"}, {"target", "tolerance", "mode"}),
        ({**TARGET, "metric": {"source": "pushed"}}, {"metric"}),
        ({**TARGET, "metric": {"source": "pushed", "name": "9"}}, {"metric.name"}),
        ({**TARGET, "metric": {"source": "guess", "name": "a"}}, {"metric.source"}),
        ({**TARGET, "metric": {"source": "prometheus", "query": "up"}}, {"metric.source"}),
        ({**TARGET, "cooldown": {"out": 5}}, {"cooldown.out"}),
        ({**TARGET, "cooldown": {"out_seconds": -1}, "max_step": {"in": "0%"}}, {"cooldown.out_seconds", "max_step.in"}),
        ({**STEPS, "steps": []}, {"steps"}),
        ({**STEPS, "steps": [{"from": 70, "change": "+1"}, {"from": 80, "to": 90, "change": "+2"}]}, {"steps"}),
        ({**STEPS, "steps": [{"from": 70, "change": "more"}]}, {"steps.0.change"}),
        ({**EVENINGS, "schedule": {"cron": "0 0 31 2 *"}}, {"schedule.cron"}),
        ({**EVENINGS, "schedule": {"cron": "0 0 * *"}}, {"schedule.cron"}),
        ({**EVENINGS, "schedule": {"cron": "R r * * *"}}, {"schedule.cron"}),
        ({**EVENINGS, "schedule": {"cron": "0 0 * * *", "time_zone": "localtime"}}, {"schedule.time_zone"}),
        ({**EVENINGS, "schedule": {"cron": "0 0 * * *", "time_zone": "right/UTC"}}, {"schedule.time_zone"}),
        ({**EVENINGS, "schedule": {"cron": "0 0 * * *", "time_zone": "Mars/Olympus"}}, {"schedule.time_zone"}),
        ({**EVENINGS, "schedule": {"cron": "0 0 * * *", "at": "2026-12-24T18:00:00Z"}}, {"schedule"}),
        ({**EVENINGS, "schedule": {"at": "2026-12-24 18:00"}}, {"schedule.at"}),
        ({**EVENINGS, "set": {"capacity": 1, "min_capacity": 1}}, {"set"}),
        ({**EVENINGS, "duration_seconds": 600}, {"set"}),
        ({**HOOK, "change": "+0", "on_bound": "burst"}, {"change", "on_bound"}),
    ],
)
def test_all_that_is_wrong_is_told_at_once(tsg: Caller, group: dict[str, Any], body: dict[str, Any], wrong: set[str]) -> None:
    assert set(field_errors(tsg("POST", path(group), body))) == wrong
    assert set(field_errors(tsg("POST", path(group, "/preview"), body))) == wrong
    assert tsg.ok("GET", path(group)) == []


def test_memory_of_hardware_virtual_machines_is_refused(make_api: Callable[..., Api]) -> None:
    api = make_api(sources={"cmon": Source()})
    tsg = api.new_account()
    memory = {**TARGET, "metric": {"source": "cmon", "measure": "memory"}}
    hvm = tsg.make_group(template_id=tsg.make_template(package=HVM_PACKAGE, image_id=HVM_IMAGE))
    told = field_errors(tsg("POST", path(hvm), memory))
    assert "hypervisor's memory" in told["metric.measure"]
    assert set(field_errors(tsg("POST", path(hvm, "/preview"), memory))) == {"metric.measure"}
    cpu = tsg.ok("POST", path(hvm), {**memory, "metric": {"source": "cmon", "measure": "cpu"}})
    assert set(field_errors(tsg("PUT", path(hvm, f"/{cpu['id']}"), memory))) == {"metric.measure"}
    tsg.ok("POST", path(tsg.make_group()), memory)
    api.sim.knobs.turn({"down": True})
    tsg.ok("POST", path(hvm), {**memory, "policy_name": "CloudAPI is away"})


def test_names_are_unique_and_policies_are_not_endless(tsg: Caller, group: dict[str, Any]) -> None:
    first = tsg.ok("POST", path(group), HOOK)
    error(tsg("POST", path(group), TARGET | {"policy_name": "hook"}), 409, "Conflict")
    tsg.ok("POST", path(group), TARGET)
    error(tsg("PUT", path(group, f"/{first['id']}"), {**HOOK, "policy_name": "load"}), 409, "Conflict")
    assert "kind" in field_errors(tsg("PUT", path(group, f"/{first['id']}"), {**TARGET, "policy_name": "hook"}))
    for number in range(2, policies.MOST):
        tsg.ok("POST", path(group), {**HOOK, "policy_name": f"hook {number}"})
    error(tsg("POST", path(group), {**HOOK, "policy_name": "one too many"}), 409, "Conflict")


def test_what_is_another_accounts_is_not_there(tsg: Caller, stranger: Caller, group: dict[str, Any]) -> None:
    made = tsg.ok("POST", path(group), HOOK)
    one = path(group, f"/{made['id']}")
    asked = [("GET", path(group), None), ("POST", path(group), HOOK), ("POST", path(group, "/preview"), HOOK), ("GET", one, None)]
    asked += [("PUT", one, HOOK), ("DELETE", one, None), ("POST", f"{one}/rotate", None), ("GET", f"{one}/decisions", None)]
    asked += [("GET", f"/groups/{group['id']}/decisions", None), ("PUT", f"/groups/{group['id']}/metrics/a", {"value": 1})]
    for method, where, body in asked:
        error(stranger(method, where, body), 404, "ResourceNotFound")
    for method, where, body in asked[3:8]:
        error(tsg(method, where.replace(made["id"], NOBODY), body), 404, "ResourceNotFound")


def test_a_repeated_request_makes_one_policy_and_shows_its_url_once(tsg: Caller, group: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    first = tsg("POST", path(group), HOOK, headers=headers).json()
    again = tsg("POST", path(group), HOOK, headers=headers).json()
    assert first.pop("webhook_url").startswith(f"{tsg.api.url}/v1/tsg/hooks/")
    assert again == first
    assert len(tsg.ok("GET", path(group))) == 1


def call(api: Api, url: str, **more: Any) -> str:
    answer = api.session.post(url, timeout=30, **more)
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert list(body) == ["decision_id"]
    return str(body["decision_id"])


def waiting(api: Api, group: Mapping[str, Any]) -> list[str]:
    return [row.id for row in api.sql("SELECT id::text FROM tsg_hook_calls WHERE group_id = :id ORDER BY at", id=group["id"])]


#: As their documents have them.
ALERTMANAGER = {
    "version": "4",
    "groupKey": '{}:{alertname="Load"}',
    "status": "firing",
    "receiver": "tsg",
    "groupLabels": {"alertname": "Load"},
    "commonLabels": {"alertname": "Load", "severity": "page"},
    "commonAnnotations": {},
    "externalURL": "http://alertmanager:9093",
    "alerts": [{"status": "firing", "labels": {"alertname": "Load"}, "startsAt": "2026-11-27T12:00:00Z", "fingerprint": "c6e3"}],
}
GRAFANA = {
    "receiver": "tsg",
    "status": "firing",
    "orgId": 1,
    "alerts": [{"status": "firing", "labels": {"alertname": "Load"}, "values": {"B": 92.5}, "dashboardURL": ""}],
    "title": "[FIRING:1] Load",
    "state": "alerting",
    "message": "**Firing**",
}


def test_alertmanager_grafana_and_an_empty_body_call_it_as_it_is(tsg: Caller, group: dict[str, Any]) -> None:
    url = tsg.ok("POST", path(group), HOOK)["webhook_url"]
    called = [call(tsg.api, url, json=ALERTMANAGER), call(tsg.api, url, json=GRAFANA), call(tsg.api, url)]
    called.append(call(tsg.api, url, data=b"x" * 65_536))
    assert waiting(tsg.api, group) == called
    assert tsg.api.session.post(url, data=b"x" * 65_537, timeout=30).status_code == 413


@pytest.mark.parametrize("form", ["/{path}", "///{path}", "/{path}/"])
def test_a_path_that_calls_it_is_logged_without_its_token(tsg: Caller, group: dict[str, Any], form: str) -> None:
    url = tsg.ok("POST", path(group), HOOK)["webhook_url"]
    token = url.rpartition("/")[2]
    where = form.format(path=f"v1/tsg/hooks/{token}")
    assert [call(tsg.api, tsg.api.url + where)] == waiting(tsg.api, group)
    assert is_hook(where)
    assert token not in without_token(where)


def test_an_unknown_token_gets_the_same_answer(tsg: Caller, group: dict[str, Any]) -> None:
    url = tsg.ok("POST", path(group), HOOK)["webhook_url"]
    known, unknown = tsg.api.session.post(url, timeout=30), tsg.api.session.post(url[:-5] + "nobod", timeout=30)
    varying = {"Date", "X-Request-Id"}
    assert {k: v for k, v in known.headers.items() if k not in varying} == {k: v for k, v in unknown.headers.items() if k not in varying}
    assert (known.status_code, known.json().keys()) == (unknown.status_code, unknown.json().keys())
    assert waiting(tsg.api, group) == [known.json()["decision_id"]]


@pytest.mark.parametrize("header", ["Idempotency-Key", "webhook-id"])
def test_a_repeated_delivery_is_one_call(tsg: Caller, group: dict[str, Any], header: str) -> None:
    url = tsg.ok("POST", path(group), HOOK)["webhook_url"]
    first, *_ = [call(tsg.api, url, headers={header: "delivery 1"}) for _ in range(3)]
    assert waiting(tsg.api, group) == [first]


def test_a_rotated_url_is_nobodys(tsg: Caller, group: dict[str, Any]) -> None:
    made = tsg.ok("POST", path(group), HOOK)
    rotated = tsg.ok("POST", path(group, f"/{made['id']}/rotate"))
    assert rotated["webhook_url"] != made["webhook_url"]
    call(tsg.api, made["webhook_url"])
    assert waiting(tsg.api, group) == []
    assert waiting(tsg.api, group) == [] != [call(tsg.api, rotated["webhook_url"])]
    target = tsg.ok("POST", path(group), TARGET)
    error(tsg("POST", path(group, f"/{target['id']}/rotate")), 409, "Conflict")


def test_the_token_is_in_no_row(tsg: Caller, group: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    token = tsg("POST", path(group), HOOK, headers=headers).json()["webhook_url"].rpartition("/")[2]
    for (table,) in tsg.api.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"):
        rows = tsg.api.sql(f"SELECT count(*) FROM {table} AS one WHERE CAST(one AS text) LIKE :token", token=f"%{token}%")
        assert rows[0][0] == 0, table


def test_a_flood_of_calls_is_noted_at_the_rate_of_a_token(tsg: Caller, group: dict[str, Any]) -> None:
    url = tsg.ok("POST", path(group), HOOK)["webhook_url"]
    for _ in range(40):
        call(tsg.api, url)
    assert 10 <= len(waiting(tsg.api, group)) < 40


def test_a_preview_says_what_would_be_and_changes_nothing(tsg: Caller, group: dict[str, Any]) -> None:
    said = tsg.ok("POST", path(group, "/preview"), EVENINGS | {"schedule": {"cron": "30 2 29 2 *", "time_zone": "Europe/Vienna"}})
    assert said["outcomes"] == []
    assert [moment[:10] for moment in said["next"][:2]] == ["2028-02-29", "2032-02-29"]
    (outcome,) = tsg.ok("POST", path(group, "/preview"), {**HOOK, "change": "+50%"})["outcomes"]
    assert (outcome["result"], outcome["capacity_before"], outcome["capacity_after"]) == ("changed", 4, 6)
    (outcome,) = tsg.ok("POST", path(group, "/preview"), TARGET)["outcomes"]
    assert (outcome["result"], outcome["recommended"]) == ("missing_data", None)
    assert "nothing was pushed as queue_length" in outcome["message"]
    assert tsg("PUT", f"/groups/{group['id']}/metrics/queue_length", {"value": 590.5}).status_code == 204
    (outcome,) = tsg.ok("POST", path(group, "/preview"), {**TARGET, "per": "group"})["outcomes"]
    assert (outcome["result"], outcome["recommended"], outcome["value"], outcome["target"]) == ("changed", 10, 590.5, 60.0)
    assert tsg.capacity(group) == 4
    assert tsg.ok("GET", f"/groups/{group['id']}/decisions") == []


def test_a_metric_is_refused_with_all_that_is_wrong(tsg: Caller, group: dict[str, Any]) -> None:
    where = f"/groups/{group['id']}/metrics"
    assert set(field_errors(tsg("PUT", f"{where}/a", {"value": "1", "member": "x"}))) == {"value", "member"}
    assert set(field_errors(tsg("PUT", f"{where}/a", {}))) == {"value"}
    assert set(field_errors(tsg("PUT", f"{where}/9", {"value": 1}))) == {"name"}
    for number in range(50):
        assert tsg("PUT", f"{where}/m{number}", {"value": number, "unit": "jobs", "member": NOBODY}).status_code == 204
    error(tsg("PUT", f"{where}/m50", {"value": 1}), 409, "Conflict")
    assert tsg("PUT", f"{where}/m49", {"value": 1}).status_code == 204


def test_metrics_need_redis_and_say_so(make_api: Callable[..., Api]) -> None:
    tsg = make_api(redis_url="redis://127.0.0.1:1/0").new_account()
    group = tsg.make_group(1)
    error(tsg("PUT", f"/groups/{group['id']}/metrics/a", {"value": 1}), 503, "ServiceUnavailable")
