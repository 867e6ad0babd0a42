"""A server as NDIF is one, for tests: it runs requests on tiny models, in a process where our package cannot be found.

The API key that a request brings chooses what goes wrong: "wrong", "gated" or "other-nnsight"; with any other nothing.
"""
# ruff: noqa: E402

import base64
import hashlib
import importlib.metadata
import io
import json
import re
import struct
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Blocked:
    """No `twotowers` and nothing of the tests here, wherever they are installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("twotowers", "conftest", "jaxtyping", "beartype"):
            raise ModuleNotFoundError(f"No module named '{name}' on this server")


sys.meta_path.insert(0, Blocked())

import torch
import zstandard
from nnsight import TransformersModel
from nnsight.schema.request import RequestModel
from nnsight.schema.response import ResponseModel, Status
from nnsight.tracing.tracer import _saves, dec, inc
from transformers import AutoModelForCausalLM, AutoTokenizer

MODELS, SUBSCRIBED, ONE_AT_A_TIME = {}, {}, threading.Lock()


def key_of(name):
    return f'nnsight.modeling.transformers.TransformersModel:{{"repo_id": "tiny/{name}", "revision": null}}'


def load(folder):
    network = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    return TransformersModel(network, task="text-generation", tokenizer=AutoTokenizer.from_pretrained(folder))


def execute(envelope, blob):
    """What the server sends back for a request: the values that its body saved."""
    model = MODELS[envelope["model_key"]]
    model._remoteable_set_env(envelope["env"])
    tracer = RequestModel.deserialize(blob, model._remoteable_persistent_objects(), compress=envelope["compress"])
    inc()
    try:
        tracer.execute(tracer.info.code)
        saved = {name: x for name, x in tracer.info.frame.f_locals.items() if id(x) in _saves()}
    finally:
        dec()
    answer = io.BytesIO()
    torch.save(saved, answer)
    return zstandard.ZstdCompressor().compress(answer.getvalue())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def reply(self, told, status=200):
        body = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/subscribe":
            return self.subscribe()
        if self.path == "/env":
            packages = {name: importlib.metadata.version(name) for name in ("nnsight", "transformers", "torch")}
            if self.headers.get("ndif-api-key") == "other-nnsight":
                packages["nnsight"] = "0.5.3"
            return self.reply({"python_version": sys.version, "packages": packages})
        entry = {"deployment_level": "HOT", "application_state": "RUNNING", "task": "text-generation"}
        served = {
            key: entry | {"model_key": key, "repo_id": json.loads(key.partition(":")[2])["repo_id"]} for key in MODELS
        }
        cold = {"cold": {"deployment_level": "COLD", "repo_id": "tiny/cold", "application_state": "NOT_STARTED"}}
        return self.reply({"deployments": served | cold})

    def subscribe(self):
        accepted = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(accepted.encode()).digest()).decode())
        self.end_headers()
        session, done = f"session-{id(self)}", threading.Event()
        SUBSCRIBED[session] = (self, done)
        self.frame(1, json.dumps({"session_id": session}).encode())
        done.wait(600)
        self.close_connection = True

    def frame(self, opcode, content):
        self.wfile.write(bytes([0x80 | opcode, 127]) + struct.pack(">Q", len(content)) + content)
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = re.search("boundary=(.*)", self.headers["Content-Type"])[1].encode()
        parts = [part.split(b"\r\n\r\n", 1)[1][:-2] for part in body.split(b"--" + boundary)[1:-1]]
        envelope, blob = json.loads(parts[0]), parts[1]
        key = self.headers.get("ndif-api-key")
        refused = {"wrong": (401, "Invalid API key"), "gated": (400, "nnsight version 0.8.1 is below 0.9")}.get(key)
        if refused:
            return self.reply({"detail": refused[1]}, refused[0])
        self.reply(ResponseModel(id="1", status=Status.RECEIVED).model_dump_json())
        socket, done = SUBSCRIBED.pop(envelope["session_id"])
        try:
            with ONE_AT_A_TIME:
                answer = execute(envelope, blob)
            socket.frame(2, ResponseModel(id="1", status=Status.COMPLETED, data=answer).pickle())
        except Exception:
            told = ResponseModel(id="1", status=Status.ERROR, description=traceback.format_exc())
            socket.frame(1, told.model_dump_json().encode())
        done.set()


if __name__ == "__main__":
    MODELS |= {key_of(Path(folder).name): load(folder) for folder in sys.argv[1:]}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
