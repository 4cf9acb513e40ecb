#!/usr/bin/env python3
"""An HTTP/2 client for t/http2.t: one connection, all requests at once, one stream each.

Connects to a Unix socket and reads one request per line from standard input, as JSON: {"headers": [[name, value], ...],
"body": text or null, "reset": true to reset the stream after the request}. Writes one response per line, in the order of the
requests: {"status": ..., "headers": {...}, "body": text} or {"reset": code}; or {"closed": code} if the connection ends.
"""

import json
import socket
import sys

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset)

# What should have happened by then has not.
PATIENCE_SECONDS = 10


def send_all(connection, sock):
    sock.sendall(connection.data_to_send())


def main():
    requests = [json.loads(line) for line in sys.stdin]
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_SECONDS)
    sock.connect(sys.argv[1])
    # Requests that no client library would send are the point of some tests.
    connection = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False,
                                              header_encoding="latin-1"))
    connection.initiate_connection()
    streams, answers = [], {}
    for request in requests:
        stream = connection.get_next_available_stream_id()
        body = request.get("body")
        connection.send_headers(stream, [tuple(pair) for pair in request["headers"]], end_stream=body is None)
        if body is not None:
            connection.send_data(stream, body.encode("latin-1"), end_stream=True)
        streams.append(stream)
        answers[stream] = {"body": ""}
        if request.get("reset"):
            send_all(connection, sock)
            connection.reset_stream(stream)
            answers[stream] = {"reset": "by the client"}
    send_all(connection, sock)
    open_streams = {stream for stream in streams if "reset" not in answers[stream]}
    while open_streams:
        received = sock.recv(65536)
        if not received:
            answers.update({stream: {"closed": "without a word"} for stream in open_streams})
            break
        for event in connection.receive_data(received):
            if isinstance(event, ResponseReceived):
                headers = dict(event.headers)
                answers[event.stream_id].update(status=headers[":status"], headers=headers)
            elif isinstance(event, DataReceived):
                answers[event.stream_id]["body"] += event.data.decode("latin-1")
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                open_streams.discard(event.stream_id)
            elif isinstance(event, StreamReset) and event.stream_id in open_streams:
                answers[event.stream_id] = {"reset": int(event.error_code)}
                open_streams.discard(event.stream_id)
            elif isinstance(event, ConnectionTerminated):
                answers.update({stream: {"closed": int(event.error_code)} for stream in open_streams})
                open_streams.clear()
        if open_streams:
            send_all(connection, sock)
    for stream in streams:
        print(json.dumps(answers[stream]))


main()
