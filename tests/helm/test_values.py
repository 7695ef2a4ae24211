"""Values, and what follows from them."""

import pytest
from helm_python.errors import HelmRenderError, HelmValuesError

from tests.helm.chart import CASES, EVERYTHING, all_of, environment, one, render, server

URL = {"source": "url", "url": "https://files/m3h.tar.gz", "sha256": "0" * 64}
ANYWHERE = {"allowTo": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"replicaCount": "3"}, "at '/replicaCount': got string, want integer"),
        ({"settings": {"queue": 1}}, "at '/settings': additional properties 'queue' not allowed"),
        ({"settings": {"queue_ms": 0}}, "at '/settings/queue_ms': minimum: got 0, want 1"),
        ({"settings": {"log_level": "loud"}}, "'debug', 'info', 'warning', 'error'"),
        ({"settings": {"redis_url": "redis://x"}}, "additional properties 'redis_url'"),
        ({"settings": {"port": None}}, "missing property 'port'"),
        ({"bundle": {"source": "s3"}}, "value must be one of 'image', 'pvc', 'url'"),
        ({"bundle": {"sha256": "abc"}}, "at '/bundle/sha256': 'abc' does not match pattern"),
        ({"resources": {"limits": {"memory": "2 GB"}}}, "at '/resources/limits/memory'"),
        ({"resources": {"limits": None}}, "missing property 'limits'"),
        ({"networkPolicy": {"allowFrom": []}}, "minItems: got 0, want 1"),
        ({"runAsUser": 0}, "at '/runAsUser': minimum: got 0, want 1"),
    ],
)
def test_the_schema_says_what_is_wrong(values, message):
    with pytest.raises(HelmValuesError) as refused:
        render(values)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": {"tag": "latest"}}, "image.tag: latest names no version"),
        ({"bundle": {"source": "pvc"}}, "bundle.claim"),
        ({"bundle": URL | {"sha256": ""}, "networkPolicy": ANYWHERE}, "bundle.sha256"),
        ({"bundle": URL}, "networkPolicy.allowTo"),
        ({"redis": {"mode": "external", "url": "rediss://r:6380"}}, "networkPolicy.allowTo"),
        ({"settings": {"otlp_endpoint": "http://otel:4318"}}, "networkPolicy.allowTo"),
        ({"redis": {"mode": "external"}, "networkPolicy": ANYWHERE}, "redis.url"),
        ({"redis": {"mode": "own"}}, "redis.password"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"training": {"enabled": True, "cohorts": ["a"]}}, "training.claim"),
        ({"training": {"enabled": True, "claim": "m3h"}}, "training.cohorts"),
    ],
)
def test_what_a_choice_needs_is_asked_for(values, message):
    with pytest.raises(HelmRenderError) as refused:
        render(values)
    assert message in str(refused.value)


@pytest.mark.parametrize("values", [{"password": "sh0rt"}, {"password": "p@ssword-p@ssword"}])
def test_a_password_that_is_refused_is_not_quoted(values):
    with pytest.raises(HelmRenderError) as refused:
        render({"redis": {"mode": "own"} | values})
    assert values["password"] not in str(refused.value)


def test_a_digest_goes_before_a_tag():
    digest = f"sha256:{'a' * 64}"
    image = {"repository": "registry/m3h", "tag": "1.2.3"}
    assert server(render({"image": image}))["containers"][0]["image"] == "registry/m3h:1.2.3"
    (container,) = server(render({"image": image | {"digest": digest}}))["containers"]
    assert container["image"] == f"registry/m3h@{digest}"


def test_a_gpu_is_asked_for_and_insisted_on():
    gpu = {"enabled": True, "resource": "nvidia.com/mig-1g.10gb", "runtimeClassName": "nvidia"}
    objects = render({"gpu": gpu, "tolerations": [{"key": "icu", "operator": "Exists"}]})
    spec = server(objects)
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert spec["runtimeClassName"] == "nvidia"
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/mig-1g.10gb", "icu"]
    # auto would serve on the CPU if the driver were missing.
    assert one(objects, "ConfigMap")["data"]["M3H_DEVICE"] == "cuda"


def test_without_a_gpu_none_is_asked_for():
    spec = server(render({"gpu": {"runtimeClassName": "nvidia"}}))
    assert spec["containers"][0]["resources"]["limits"].keys() == {"cpu", "memory"}
    assert not {"runtimeClassName", "tolerations"} & spec.keys()


def test_probes_wait_for_the_bundle_and_then_ask_the_model():
    (container,) = server(render({"startupSeconds": 601}))["containers"]
    startup, ready, live = (container[f"{p}Probe"] for p in ("startup", "readiness", "liveness"))
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 601
    assert ready["httpGet"]["path"] == "/health/ready"
    assert live["httpGet"]["path"] == startup["httpGet"]["path"] == "/health/live"


def test_a_rollout_is_not_given_up_while_pods_may_still_start():
    spec = one(render({"startupSeconds": 1200}), "Deployment")["spec"]
    assert spec["progressDeadlineSeconds"] > 1200


def test_the_port_is_the_same_everywhere():
    objects = render({"settings": {"port": 9000}})
    assert server(objects)["containers"][0]["ports"][0]["containerPort"] == 9000
    policy = next(o for o in all_of(objects, "NetworkPolicy") if o["metadata"]["name"] == "m3h")
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == 9000
    assert one(objects, "Service")["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": {"queue_ms": 99}},
        {"redis": {"mode": "own", "password": "b" * 16}},
        {"bundle": {"path": "other"}},
    ],
)
def test_pods_are_replaced_when_what_they_read_changes(changed):
    redis = {"redis": {"mode": "own", "password": "a" * 16}}
    before, after = (
        one(render(v), "Deployment")["spec"]["template"] for v in (redis, redis | changed)
    )
    assert before != after


def test_pods_stay_when_others_change():
    before, after = (
        one(render(v), "Deployment")["spec"]["template"]
        for v in ({}, {"service": {"type": "NodePort"}, "ingress": {"enabled": True, "host": "x"}})
    )
    assert before == after


def test_a_bundle_from_a_claim_is_read_only():
    spec = server(render({"bundle": {"source": "pvc", "claim": "m3h"}}))
    (volume,) = [v for v in spec["volumes"] if v["name"] == "bundles"]
    mount = {"name": "bundles", "mountPath": "/bundles", "readOnly": True}
    assert mount in spec["containers"][0]["volumeMounts"]
    assert volume["persistentVolumeClaim"] == {"claimName": "m3h", "readOnly": True}
    assert "initContainers" not in spec


def test_a_bundle_is_fetched_before_it_is_served():
    spec = server(render({"bundle": URL, "networkPolicy": ANYWHERE}))
    (fetch,) = spec["initContainers"]
    assert fetch["args"][1:] == ["https://files/m3h.tar.gz", "0" * 64, "/bundles"]
    assert fetch["image"] == spec["containers"][0]["image"]
    assert {"name": "bundles", "mountPath": "/bundles"} in fetch["volumeMounts"]


def test_an_own_redis_has_a_password_and_one_address():
    objects = render({"redis": {"mode": "own", "password": "a" * 16}}, name="icu")
    (redis,) = one(objects, "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
    (serving,) = server(objects)["containers"]
    assert environment(objects, redis) == {"REDIS_PASSWORD": "a" * 16}
    url = environment(objects, serving)["M3H_REDIS_URL"]
    assert url == f"redis://:{'a' * 16}@icu-m3h-redis:6379/0"
    assert one(objects, "Service", "redis")["metadata"]["name"] == "icu-m3h-redis"
    assert redis["args"][0] == "--requirepass $(REDIS_PASSWORD)"


def test_entries_in_redis_have_a_key_that_redis_does_not_know():
    values = {"redis": {"mode": "own", "password": "a" * 16}}
    objects = render(values)
    (serving,) = server(objects)["containers"]
    (redis,) = one(objects, "StatefulSet", "redis")["spec"]["template"]["spec"]["containers"]
    made = environment(objects, serving)["M3H_REDIS_SECRET"]
    assert len(made) >= 32
    assert "M3H_REDIS_SECRET" not in environment(objects, redis)
    (again,) = server(render(values))["containers"]
    assert environment(render(values), again)["M3H_REDIS_SECRET"] != made
    values["redis"]["secret"] = "k" * 20
    assert environment(render(values), serving)["M3H_REDIS_SECRET"] == "k" * 20


def test_a_new_key_of_the_entries_starts_no_pod_anew():
    values = {"redis": {"mode": "own", "password": "a" * 16}}
    pods = [one(render(values), "Deployment")["spec"]["template"] for _ in range(2)]
    assert pods[0] == pods[1]


def test_only_pods_that_serve_reach_the_own_redis():
    objects = render({"redis": {"mode": "own", "password": "a" * 16}})
    policy = one(objects, "NetworkPolicy", "redis")["spec"]
    (rule,) = policy["ingress"]
    component = rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
    assert component == "server"
    assert policy["policyTypes"] == ["Ingress"]


def test_a_secret_of_others_is_used_and_not_made():
    redis = {"mode": "external", "existingSecret": "theirs", "caConfigMap": "ca"}
    objects = render({"redis": redis, "networkPolicy": ANYWHERE})
    spec = server(objects)
    found = environment(objects, spec["containers"][0])
    for name in ("M3H_REDIS_URL", "M3H_REDIS_SECRET"):
        assert found[name] == f"theirs/{name}"
    assert {v["name"] for v in spec["volumes"]} == {"tmp", "redis-ca"}
    assert not all_of(objects, "Secret")


def test_without_redis_a_pod_that_serves_reaches_nothing():
    policies = all_of(render({}), "NetworkPolicy")
    serving = next(o for o in policies if o["metadata"]["name"] == "m3h")
    assert "Egress" in serving["spec"]["policyTypes"]
    assert "egress" not in serving["spec"]


def test_the_autoscaler_follows_the_queue_only_if_asked():
    scaled = {"enabled": True}
    metrics = [
        one(render({"autoscaling": scaled | more}), "HorizontalPodAutoscaler")["spec"]["metrics"]
        for more in ({}, {"targetQueueDepth": 4})
    ]
    assert [len(found) for found in metrics] == [1, 2]
    assert metrics[1][1]["pods"]["target"] == {"type": "AverageValue", "averageValue": "4"}


def test_a_node_can_be_drained_even_of_the_only_pod():
    budget = one(render({"replicaCount": 1}), "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_replicas_are_spread_over_zones_and_nodes():
    spread = server(render({"topologySpread": "DoNotSchedule"}))["topologySpreadConstraints"]
    assert [s["topologyKey"].rpartition("/")[2] for s in spread] == ["zone", "hostname"]
    assert {s["whenUnsatisfiable"] for s in spread} == {"DoNotSchedule"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"podDisruptionBudget": {"enabled": False}}, "PodDisruptionBudget"),
        ({"networkPolicy": {"enabled": False}}, "NetworkPolicy"),
        ({"autoscaling": {"enabled": False}}, "HorizontalPodAutoscaler"),
        ({"ingress": {"enabled": False}}, "Ingress"),
        ({"redis": {"mode": "none"}}, "StatefulSet"),
        ({"redis": {"mode": "none"}}, "Secret"),
        ({"training": {"enabled": False}}, "Job"),
        ({"monitoring": {"serviceMonitor": False}}, "ServiceMonitor"),
        ({"monitoring": {"prometheusRule": False}}, "PrometheusRule"),
    ],
)
def test_what_is_off_is_not_there(values, kind):
    assert all_of(render(EVERYTHING), kind)
    assert not all_of(render({**EVERYTHING, **values}), kind)


def test_the_ingress_has_the_certificate_of_its_host():
    ingress = one(render(CASES["three-gpus-values.yaml"]), "Ingress")["spec"]
    assert ingress["tls"] == [{"hosts": ["m3h.hospital.example"], "secretName": "m3h-tls"}]
    assert ingress["rules"][0]["host"] == "m3h.hospital.example"


def test_what_clusters_ask_of_pods_is_set():
    objects = render(EVERYTHING)
    deployment = one(objects, "Deployment")
    pod = deployment["spec"]["template"]
    assert pod["spec"]["priorityClassName"] == "high"
    assert pod["spec"]["affinity"] == EVERYTHING["affinity"]
    assert pod["spec"]["topologySpreadConstraints"] == EVERYTHING["topologySpreadConstraints"]
    assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert pod["metadata"]["annotations"].keys() >= {"checksum/config", "checksum/secret"}
    assert pod["metadata"]["labels"]["team"] == "icu"
    selected = deployment["spec"]["selector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()
    assert "team" not in selected
    found = environment(objects, pod["spec"]["containers"][0])
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert "M3H_REDIS_URL" in found


def test_without_them_nothing_of_it_is_in_a_pod():
    spec = server(render({}))
    assert not spec.keys() & {"priorityClassName", "affinity"}
    assert [c["topologyKey"] for c in spec["topologySpreadConstraints"]] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    (container,) = server(render({"extraEnv": [{"name": "A", "value": "b"}]}))["containers"]
    assert container["env"] == [{"name": "A", "value": "b"}]
    assert "env" not in spec["containers"][0]


@pytest.mark.parametrize(
    "values",
    [
        {"podLabels": {"app.kubernetes.io/name": "other"}},
        {"podAnnotations": {"checksum/config": "0"}},
        {"extraEnv": [{"name": "M3H_PORT", "value": "9000"}]},
        {"extraEnv": [{"value": "9000"}]},
        {"ingress": {"path": "m3h"}},
        {"ingress": {"path": "/m3h/"}},
    ],
)
def test_what_would_undo_the_chart_is_refused(values):
    with pytest.raises(HelmValuesError):
        render(values)
