"""Plays a kubelet and a scheduler for tests/e2e/webservice-kube.

Each new Pod of the namespace is bound to the node and gets the status in a file. A Pod that is deleted is gone at once. Logs are
files, with a time at the beginning of each line. Of Pods with standard input the command really runs, as the given user, and the
API server may attach to it.

    python3 kubelet.py API-URL TOKEN NAMESPACE NODE ADDRESS CERTIFICATE KEY STATUS-FILE LOG-DIRECTORY USER
"""

import base64
import fcntl
import hashlib
import http.server
import json
import os
import pty
import pwd
import signal
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

api, token, namespace, node, address, certificate, key, status_file, log_directory, user = sys.argv[1:]
account = pwd.getpwnam(user)
processes = {}


def ask(method, path, body=None, kind="application/json"):
    headers = {"Authorization": "Bearer " + token, "Content-Type": kind}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10, context=ssl._create_unverified_context()) as response:
        return json.load(response)


def pods(name=""):
    return f"/api/v1/namespaces/{namespace}/pods/{name}".rstrip("/")


def set_status(name, status):
    ask("PATCH", pods(name) + "/status", {"status": status}, "application/merge-patch+json")


def take_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Ignored in background processes of scripts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Process:
    """The command of a Pod, with a terminal or pipes."""

    def __init__(self, metadata, container):
        self.name, self.uid, self.has_terminal = metadata["name"], metadata["uid"], container.get("tty", False)
        far = [subprocess.PIPE] * 3
        if self.has_terminal:
            self.terminal, slave = pty.openpty()
            far = [slave] * 3
        self.child = subprocess.Popen(
            container["command"], stdin=far[0], stdout=far[1], stderr=far[2], cwd=container.get("workingDir"),
            env={"HOME": account.pw_dir, "PATH": os.environ["PATH"], "TERM": "xterm"},
            user=account.pw_uid, group=account.pw_gid, extra_groups=[], start_new_session=True,
            preexec_fn=take_terminal if self.has_terminal else None)
        if self.has_terminal:
            os.close(slave)
        self.sources = [(1, self.terminal)] if self.has_terminal else [
            (1, self.child.stdout.fileno()), (2, self.child.stderr.fileno())]
        threading.Thread(target=self.wait, daemon=True).start()

    def wait(self):
        code = self.child.wait()
        state = {"terminated": {"exitCode": code if code >= 0 else 128 - code, "reason": "Completed"}}
        status = {"name": "webservice", "image": "x", "imageID": "", "restartCount": 0, "ready": False, "state": state}
        try:
            set_status(self.name, {"phase": "Failed" if code else "Succeeded", "containerStatuses": [status]})
        except urllib.error.HTTPError:
            pass  # deleted

    def write(self, data):
        if self.has_terminal:
            os.write(self.terminal, data)
        elif data:
            self.child.stdin.write(data)
            self.child.stdin.flush()

    def resize(self, size):
        if self.has_terminal:
            packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, packed)


def play():
    """One look at the Pods."""
    for pod in ask("GET", pods())["items"]:
        name, spec = pod["metadata"]["name"], pod["spec"]
        if pod["metadata"].get("deletionTimestamp"):
            if name in processes:
                processes.pop(name).child.kill()
            ask("DELETE", pods(name), {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
        elif not spec.get("nodeName"):
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            ask("POST", pods(name) + "/binding", body)
        elif "containerStatuses" not in pod["status"]:
            with open(status_file) as file:
                status = json.load(file)
            if spec["containers"][0].get("stdin") and status["phase"] == "Running":
                # An earlier Pod may have had the name.
                if name not in processes or processes[name].uid != pod["metadata"]["uid"]:
                    processes[name] = Process(pod["metadata"], spec["containers"][0])
            set_status(name, status)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        what, _, name = url.path.split("/")[1:4]
        if what == "containerLogs":
            self.send_log(os.path.join(log_directory, name), query)
        elif what == "attach" and name in processes:
            self.attach(processes[name])
        else:
            self.send_error(404)
        self.close_connection = True

    def send_log(self, path, query):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Connection", "close")
        self.end_headers()
        sent = None
        while os.path.exists(path):
            with open(path) as file:
                lines = file.readlines()
            if sent is None:
                sent = max(0, len(lines) - int(query.get("tailLines", len(lines))))
            for line in lines[sent:]:
                time_, _, text = line.partition(" ")
                if time_[:19] >= query.get("sinceTime", "")[:19]:
                    self.wfile.write((line if query.get("timestamps") else text).encode())
            self.wfile.flush()
            sent = len(lines)
            if not query.get("follow"):
                return
            time.sleep(0.05)

    def attach(self, process):
        magic = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode())
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()
        lock = threading.Lock()

        def send(kind, data):
            head = bytes([0x80 | kind]) + (bytes([len(data)]) if len(data) < 126 else struct.pack("!BH", 126, len(data)))
            with lock:
                self.wfile.write(head + data)
                self.wfile.flush()

        def copy(channel, source):
            try:
                while data := os.read(source, 4096):
                    send(2, bytes([channel]) + data)
            except OSError:
                pass  # the terminal's other end is closed

        def copy_all():
            copiers = [threading.Thread(target=copy, args=source, daemon=True) for source in process.sources]
            for copier in copiers:
                copier.start()
            for copier in copiers:
                copier.join()
            try:
                send(2, b'\x03{"metadata":{},"status":"Success"}')
                send(8, b"")
            except OSError:
                pass  # the client has gone

        threading.Thread(target=copy_all, daemon=True).start()
        try:
            while True:
                first, second = self.rfile.read(2)
                length = second & 127
                if length == 126:
                    length, = struct.unpack("!H", self.rfile.read(2))
                mask = self.rfile.read(4)
                data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(length)))
                if first & 15 == 8:
                    break
                if first & 15 == 9:
                    send(10, data)
                elif first & 15 == 2 and data[0] == 0:
                    process.write(data[1:])
                elif first & 15 == 2 and data[0] == 4:
                    process.resize(json.loads(data[1:]))
        except (OSError, ValueError):
            pass  # the connection has ended
        # As stdinOnce asks for.
        if process.child.poll() is None:
            os.close(process.terminal) if process.has_terminal else process.child.stdin.close()

    def log_message(self, format, *arguments):
        print(format % arguments, flush=True)


server = http.server.ThreadingHTTPServer((address, 10250), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("listening", flush=True)
while True:
    try:
        play()
    except (OSError, urllib.error.URLError) as error:
        print(error, flush=True)
    time.sleep(0.1)
