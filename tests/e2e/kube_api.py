"""A Kubernetes API server over TLS that has the Service cloud in tool-cloud at 10.96.0.10:8000, unless the
file EMPTY exists. For tests/e2e/systemd alone: the tests of kube2proxy itself take a real one.

    kube_api.py ADDRESS PORT CERTIFICATE KEY TOKEN EMPTY"""
import http.server
import json
import os
import ssl
import sys
import time
import urllib.parse

LABEL = "tools.wmflabs.org/webservice"
SERVICE = {
    "metadata": {
        "name": "cloud", "namespace": "tool-cloud", "uid": "1", "resourceVersion": "1", "labels": {LABEL: "true"},
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}]},
}

FULL, EMPTY = "1", "2"  # versions of the list
address, port, certificate, key, token, empty = sys.argv[1:]


def version():
    return EMPTY if os.path.exists(empty) else FULL


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass

    def answer(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.headers.get("Authorization") != f"Bearer {token}":
            status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Unauthorized", "code": 401}
            self.answer(401, status)
        elif url.path != "/api/v1/services":
            self.answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
        elif query.get("watch") in ("true", "1"):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Connection", "close")
            self.end_headers()
            # No event until the client's own timeout, or until the list changes: then the client has to list again.
            end = time.monotonic() + int(query.get("timeoutSeconds", "60"))
            while version() == query.get("resourceVersion") and time.monotonic() < end:
                time.sleep(0.1)
            if version() != query.get("resourceVersion"):
                gone = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}
                self.wfile.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        else:
            now = version()
            items = [SERVICE] if LABEL in query.get("labelSelector", "") and now == FULL else []
            self.answer(200, {"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": now}, "items": items})


server = http.server.ThreadingHTTPServer((address, int(port)), Api)
server.daemon_threads = True
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
