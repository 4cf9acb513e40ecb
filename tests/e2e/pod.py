"""Runs a Pod of a Deployment as a kubelet would, for tests/e2e/proxy-pod: its containers as processes in the root of their image,
with the volumes, environment, user and limits of the manifest.

    python3 pod.py OBJECTS DEPLOYMENT IMAGE-ROOT VOLUMES STATUS-FILE

OBJECTS is a List in JSON with the Deployment, its ConfigMaps and Secrets; all containers use one image. Mounts belong to the
caller's mount namespace. SIGTERM ends the Pod: preStop, the stop signal, SIGKILL after the grace period. The status file has one
word: starting, running, ready, stopping, or failed.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time

objects_file, deployment, image, volumes, status_file = sys.argv[1:]
# Of the image, as docker/Dockerfile says.
ENTRY_POINT, COMMAND, STOP_SIGNAL = ["proxy-entrypoint"], ["nginx", "-e", "stderr", "-g", "daemon off;"], signal.SIGQUIT
objects = json.load(open(objects_file))["items"]
is_ending = False


def find(kind, name):
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


pod = find("Deployment", deployment)["spec"]["template"]["spec"]


def set_status(word):
    with open(status_file + ".new", "w") as file:
        file.write(word)
    os.rename(status_file + ".new", status_file)


def files_of(source):
    """The files of a ConfigMap or Secret, as a volume or a part of one."""
    if "configMap" in source:
        data = {name: text.encode() for name, text in find("ConfigMap", source["configMap"]["name"])["data"].items()}
        items = source["configMap"].get("items")
    else:
        secret = source["secret"]
        encoded = find("Secret", secret.get("secretName") or secret["name"])["data"]
        data = {name: base64.b64decode(text) for name, text in encoded.items()}
        items = secret.get("items")
    return {item["path"]: data[item["key"]] for item in items} if items else data


def make_volume(volume):
    path = os.path.join(volumes, volume["name"])
    os.mkdir(path)
    os.chmod(path, 0o777)
    if "emptyDir" in volume:
        return
    source = volume.get("projected") or volume.get("configMap") or volume["secret"]
    for part in source["sources"] if "projected" in volume else [volume]:
        for name, content in files_of(part).items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(content)
            os.chmod(file.name, source["defaultMode"])
    os.chmod(path, 0o755)


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def make_root(container):
    """The image, read-only, with the container's volumes."""
    assert container["securityContext"]["readOnlyRootFilesystem"]
    root = os.path.join(volumes, "root-" + container["name"])
    os.mkdir(root)
    mount("--rbind", image, root)
    for at in container["volumeMounts"]:
        place = root + at["mountPath"]
        source = os.path.join(volumes, at["name"], at.get("subPath", ""))
        if os.path.isdir(source):
            os.makedirs(place, exist_ok=True)
        mount("--bind", source, place)
        if at.get("readOnly"):
            mount("-o", "remount,bind,ro", place)
    mount("-o", "remount,bind,ro", root)
    return root


def run(container, root, command):
    context = {**pod["securityContext"], **container["securityContext"]}
    assert context["runAsNonRoot"] and context["capabilities"] == {"drop": ["ALL"]} and not context["allowPrivilegeEscalation"]
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for source in container.get("envFrom", []):
        environment.update(find("ConfigMap", source["configMapRef"]["name"])["data"])
    # As container runtimes do, so that nginx can open /dev/stdout.
    for descriptor in 1, 2:
        os.fchown(descriptor, context["runAsUser"], context["runAsGroup"])
    user = ["setpriv", f"--reuid={context['runAsUser']}", f"--regid={context['runAsGroup']}", "--clear-groups",
            "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]
    return subprocess.Popen(["chroot", root, *user, *command], env=environment, cwd="/", start_new_session=True)


def end(*_):
    global is_ending
    is_ending = True


signal.signal(signal.SIGTERM, end)
set_status("starting")
for setting in pod["securityContext"]["sysctls"]:
    with open("/proc/sys/" + setting["name"].replace(".", "/"), "w") as file:
        file.write(setting["value"])
for volume in pod["volumes"]:
    make_volume(volume)
for container in pod["initContainers"]:
    if run(container, make_root(container), container["command"]).wait() != 0:
        set_status("failed")
        sys.exit(f"the init container {container['name']} failed")

[container] = pod["containers"]
root = make_root(container)
probe = container["readinessProbe"]["exec"]["command"]
command = ENTRY_POINT + container.get("args", COMMAND)
process = run(container, root, command)
while not is_ending:
    if process.poll() is not None:
        print("the container ended with", process.returncode, flush=True)
        process = run(container, root, command)
    set_status("ready" if run(container, root, probe).wait() == 0 else "running")
    time.sleep(0.2)

set_status("stopping")
deadline = time.monotonic() + pod["terminationGracePeriodSeconds"]
assert run(container, root, container["lifecycle"]["preStop"]["exec"]["command"]).wait() == 0
process.send_signal(STOP_SIGNAL)
try:
    code = process.wait(deadline - time.monotonic())
except subprocess.TimeoutExpired:
    process.kill()
    sys.exit("the grace period is over")
print("the container ended with", code, flush=True)
sys.exit(code)
