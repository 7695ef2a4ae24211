"""The choice of the requests that are traced."""

import pytest

from tests.support.servers.trace_collector import NOT_SAMPLED, SAMPLED


def test_the_span_of_the_caller_is_the_parent(start_traced):
    traced = start_traced(ratio=0.0)
    answer = traced.service.client.get("/tasks", headers={"traceparent": SAMPLED})
    assert answer.headers["traceparent"] == SAMPLED
    (server,) = traced.export().servers()
    assert f"00-{server.trace}-{server.parent}-01" == SAMPLED


def test_a_request_that_the_caller_did_not_sample_is_not_traced(start_traced):
    traced = start_traced(ratio=1.0)
    answer = traced.service.client.get("/tasks", headers={"traceparent": NOT_SAMPLED})
    assert answer.headers["traceparent"] == NOT_SAMPLED
    assert traced.export().spans() == []


def test_a_new_trace_id_is_in_the_response_and_the_log(start_traced):
    traced = start_traced()
    answer = traced.service.client.get("/tasks")
    (server,) = traced.export().servers()
    assert server.parent == ""
    made = answer.headers["traceparent"]
    version, trace, span, flags = made.split("-")
    assert (version, trace, span, int(flags, 16) & 1) == ("00", server.trace, server.id, 1)
    assert made in traced.service.log.getvalue()


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.5, 60, 140)])
def test_the_ratio_applies_to_requests_without_traceparent(start_traced, ratio, least, most):
    traced = start_traced(ratio=ratio)
    flags = [traced.service.client.get("/tasks").headers["traceparent"][-2:] for _ in range(200)]
    traced = len(traced.export().servers())
    assert least <= traced <= most
    assert sum(int(flag, 16) & 1 for flag in flags) == traced
