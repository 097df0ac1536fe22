#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""packaging/kubernetes/deployment.yaml: its fields are those of the API, its parts name each other rightly, and its configuration,
key, probes and commands do what they say with a daemon of this build."""
import os
import re
import stat
import subprocess

import harness

FILE = os.path.join(harness.ROOT, "packaging", "kubernetes", "deployment.yaml")
# Of the API's objects the fields that are used here (kubernetes.io/docs/reference, v1, apps/v1, policy/v1).
FIELDS = {
    "object": {"apiVersion", "kind", "metadata", "data", "spec"},
    "metadata": {"name", "labels"},
    "Service": {"clusterIP", "selector", "ports"},
    "PodDisruptionBudget": {"maxUnavailable", "minAvailable", "selector"},
    "Deployment": {"replicas", "selector", "strategy", "template"},
    "pod": {"automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds", "securityContext",
            "initContainers", "containers", "volumes"},
    "pod security": {"runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile"},
    "container": {"name", "image", "command", "args", "ports", "resources", "securityContext", "startupProbe", "readinessProbe",
                  "livenessProbe", "lifecycle", "volumeMounts", "env"},
    "container security": {"allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"},
    "probe": {"exec", "periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds", "successThreshold"},
    "mount": {"name", "mountPath", "readOnly", "subPath"},
    "port": {"name", "port", "targetPort", "containerPort", "protocol"},
    "volume": {"name", "emptyDir", "configMap", "secret", "persistentVolumeClaim"},
}
VERSIONS = {"ConfigMap": "v1", "Service": "v1", "PodDisruptionBudget": "policy/v1", "Deployment": "apps/v1"}


def load():
    try:
        import yaml
    except ImportError:
        raise harness.Skip("python3-yaml is not installed")
    with open(FILE, encoding="utf-8") as file:
        return {d["kind"]: d for d in yaml.safe_load_all(file)}



with harness.story("the deployment's parts are those of the API, and fit each other") as story:
    parts = load()

    def known(what, found):
        story.check(set(found) <= FIELDS[what], f"{what} has no {set(found) - FIELDS[what]}")

    story.check({k: d["apiVersion"] for k, d in parts.items()} == VERSIONS, f"kinds and versions: {list(parts)}")
    for kind, part in parts.items():
        known("object", part)
        known("metadata", part["metadata"])
        if kind in FIELDS:
            known(kind, part["spec"])
    deployment, pod = parts["Deployment"]["spec"], parts["Deployment"]["spec"]["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (deployment["selector"]["matchLabels"], parts["Service"]["spec"]["selector"],
                     parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]):
        story.check(selector == labels, f"a selector finds the pods: {selector}")
    known("pod", pod)
    known("pod security", pod["securityContext"])
    story.check(pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0, "it is not root")
    volumes = {v["name"] for v in pod["volumes"]}
    for volume in pod["volumes"]:
        known("volume", volume)
        story.check(len(volume) == 2, f"a volume is of one kind: {volume}")
    mounted = set()
    for container in pod["initContainers"] + pod["containers"]:
        known("container", container)
        known("container security", container["securityContext"])
        story.check(container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                     "capabilities": {"drop": ["ALL"]}}, f"{container['name']} is confined")
        story.check({"requests", "limits"} <= set(container["resources"]), f"{container['name']} says what it needs")
        for mount in container["volumeMounts"]:
            known("mount", mount)
            mounted.add(mount["name"])
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            known("probe", container.get(name, {}))
        for port in container.get("ports", ()):
            known("port", port)
    story.check(mounted == volumes, f"every volume is mounted, and every mount is a volume: {mounted ^ volumes}")
    (main,) = pod["containers"]
    service = parts["Service"]["spec"]["ports"][0]
    known("port", service)
    story.check(service["targetPort"] in [p["name"] for p in main["ports"]], "the service finds the port")
    config = parts["ConfigMap"]["data"]["tersed.conf"]
    port = main["ports"][0]["containerPort"]
    story.check(f"listen = tcp://0.0.0.0:{port}" in config and service["port"] == port, "the daemon listens there")
    story.check([v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "config"] == [parts["ConfigMap"]["metadata"]["name"]],
                "the configuration is the one that is mounted")
    drain = int(re.search(r"drain_timeout_ms = (\d+)", config).group(1)) / 1000
    wait = int(main["lifecycle"]["preStop"]["exec"]["command"][1])
    story.check(wait + drain < pod["terminationGracePeriodSeconds"], "there is time to answer what is queued")
    with open(os.path.join(harness.ROOT, "packaging", "container", "Containerfile")) as file:
        image = file.read()
    story.check(f"EXPOSE {port}" in image and f"USER {pod['securityContext']['runAsUser']}:" in image and
                f"VOLUME {next(m['mountPath'] for m in main['volumeMounts'] if m['name'] == 'run')}" in image,
                "the image has that port, user and volume")

with harness.story("the deployment's configuration, probes and stop work with a daemon") as story:
    parts = load()
    pod = parts["Deployment"]["spec"]["template"]["spec"]
    (main,), (keys,) = pod["containers"], pod["initContainers"]
    # The paths of the pod, in a folder of ours.
    places = {m["mountPath"]: f"{story.folder}/{m['name']}" for c in (keys, main) for m in c["volumeMounts"]}
    for folder in set(places.values()):
        os.makedirs(folder, exist_ok=True)

    def here(text):
        for path in sorted(places, key=len, reverse=True):
            text = text.replace(path, places[path])
        return text

    harness.run("terse", "keygen", f"{places['/var/run/secrets/terse']}/daemon")
    os.chmod(f"{places['/var/run/secrets/terse']}/daemon.key_secret", 0o440)  # as a secret with fsGroup is
    harness.run("terse", "keygen", f"{story.folder}/friend")
    os.rename(f"{story.folder}/friend.key", f"{places['/etc/terse-clients']}/friend.key")
    subprocess.run([here(word) for word in keys["command"]], check=True)
    mode = stat.S_IMODE(os.stat(f"{places['/run/terse-keys']}/daemon.key_secret").st_mode)
    story.check(mode == 0o400, f"the key is for its owner alone: {mode:o}")
    os.rename(story.digits(), f"{places['/var/lib/terse/models']}/digits.terse")
    text = here(parts["ConfigMap"]["data"]["tersed.conf"])
    for _ in range(20):  # a port that is free
        port = 20000 + int.from_bytes(os.urandom(2), "little") % 12000
        with open(f"{places['/etc/terse']}/tersed.conf", "w") as file:
            file.write(text.replace("tcp://0.0.0.0:5555", f"tcp://127.0.0.1:{port}"))
        checked = subprocess.run([harness.program("tersed"), "--check", *map(here, main["args"])], capture_output=True, text=True)
        story.check(checked.returncode == 0, f"the configuration is right: {checked.stderr}")
        log = open(f"{story.folder}/log", "w")
        daemon = subprocess.Popen([harness.program("tersed"), *map(here, main["args"])], stderr=log)
        environment = dict(os.environ, TERSE_ENDPOINT=here("ipc:///run/terse/tersed.sock"))

        def probe(name, **more):
            command = main[name]["exec"]["command"]
            return subprocess.run([harness.program(command[0]), *command[1:]], capture_output=True, text=True,
                                  env=dict(environment, **more)).returncode

        harness.wait_until(lambda: daemon.poll() is not None or probe("startupProbe") == 0, "it starts")
        if daemon.poll() is None:
            break
    story.check([probe(p) for p in ("startupProbe", "readinessProbe", "livenessProbe")] == [0, 0, 0], "all probes are content")
    told = harness.run_json("terse", "bench", "-e", f"tcp://127.0.0.1:{port}", "digits", "--requests", "50", "--json", env=dict(
        os.environ, TERSE_CURVE_SERVER=f"{places['/var/run/secrets/terse']}/daemon.key",
        TERSE_CURVE_KEY=f"{story.folder}/friend.key_secret"))
    story.check(told["ok"] == 50, f"a client of the cluster is served: {told}")
    daemon.terminate()
    story.check(daemon.wait(timeout=harness.PATIENCE) == 0, "it ends when told to")
    story.check(all(probe(p) for p in ("readinessProbe", "livenessProbe")), "probes say so when nobody is there")

RUNTIME = os.path.join(harness.ROOT, "packaging", "kubernetes", "servingruntime.yaml")
# Of serving.kserve.io/v1alpha1.
FIELDS.update({
    "ServingRuntime": {"supportedModelFormats", "protocolVersions", "multiModel", "containers", "volumes"},
    "format": {"name", "version", "autoSelect"},
})
FIELDS["probe"] |= {"httpGet"}

with harness.story("the runtime for KServe: its parts are those of the API, and answer the Open Inference Protocol") as story:
    import gateways

    with open(RUNTIME, encoding="utf-8") as file:
        load()  # skips without yaml
        import yaml
        runtime = yaml.safe_load(file)
    spec = runtime["spec"]
    story.check((runtime["kind"], runtime["apiVersion"]) == ("ServingRuntime", "serving.kserve.io/v1alpha1"), "its kind")
    story.check(set(spec) <= FIELDS["ServingRuntime"], f"its fields: {list(spec)}")
    story.check(all(set(f) <= FIELDS["format"] for f in spec["supportedModelFormats"]) and spec["protocolVersions"] == ["v2"],
                "what it serves")
    daemon, gateway = spec["containers"]
    story.check(daemon["name"] == "kserve-container", "KServe mounts the model where the daemon is")
    for container in (daemon, gateway):
        story.check(set(container) <= FIELDS["container"], f"{container['name']} has {set(container) - FIELDS['container']}")
        for probe in (container[p] for p in ("readinessProbe", "livenessProbe") if p in container):
            story.check(set(probe) <= FIELDS["probe"], f"a probe of {container['name']}")
    port = daemon["ports"][0]["containerPort"]
    story.check(gateway["args"][:2] == ["--listen", f"0.0.0.0:{port}"] and daemon["readinessProbe"]["httpGet"]["port"] == port,
                "the gateway listens where the service looks")
    run, models = f"{story.folder}/run", f"{story.folder}/models"
    os.mkdir(run), os.mkdir(models)
    os.rename(story.digits(), f"{models}/model.terse")

    def there(text):
        return text.replace("/run/terse", run).replace("/mnt/models", models).replace("{{.Name}}", "mine")

    with open(f"{story.folder}/log", "w") as log:
        served = subprocess.Popen([harness.program("tersed"), *map(there, daemon["args"])], stderr=log)
    http = gateways.Gateway(story.folder, there(gateway["args"][3]))
    ready = daemon["readinessProbe"]["httpGet"]["path"]
    harness.wait_until(lambda: http.get(ready).status == 200, "it gets ready")
    story.check(http.get(gateway["livenessProbe"]["httpGet"]["path"]).status == 200, "it lives")
    story.check(http.get("/v2/models/mine").json["name"] == "mine", "the model has the service's name")
    served.terminate()
    story.check(served.wait(timeout=harness.PATIENCE) == 0, "the daemon ends when told to")
    story.check(http.get(ready).status != 200, "and is not ready any more")
    http.process.terminate()
    story.check(http.process.wait(timeout=harness.PATIENCE) == 0, "so does the gateway")

harness.finish()
