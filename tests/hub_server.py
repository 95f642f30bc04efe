"""A stand-in for the Hugging Face hub on loopback: what is asked to make a repository, commit to it and look at it."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

LARGE = (".safetensors", ".png")
"""Sent apart from the commit, as the hub has it for large and binary files."""


@dataclass
class Repository:
    private: bool = False
    sha: str = "0" * 40
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"*.safetensors filter=lfs\n"})
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    damage: bool = False
    """Whether a byte of what is sent apart is changed on the way."""
    refuse: str | None = None
    """Answers each commit with 403 and this message."""


@contextlib.contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self, hub)

        do_POST = do_PUT = do_GET

        def log_message(self, *ignored):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, hub: Hub) -> None:
    path = urlsplit(request.path).path
    body = read_body(request)
    if "authorization" in request.headers:
        hub.tokens.add(request.headers["authorization"].removeprefix("Bearer "))
    name = re.match(r"/(?:api/models/)?([^/]+/[^/.]+)", path)
    repository = hub.repositories.get(name[1]) if name else None
    status, content = 404, {"error": f"no {path}"}
    if path == "/api/repos/create":
        status, content = create(hub, json.loads(body))
    elif path == "/api/validate-yaml":
        status, content = 200, {"errors": [], "warnings": []}
    elif path.startswith("/large/"):
        hub.large[path.removeprefix("/large/")] = body[:-1] + b"?" if hub.damage else body
        status, content = 200, {}
    elif repository is not None and path.endswith("/preupload/main"):
        names = [one["path"] for one in json.loads(body)["files"]]
        modes = [{"path": one, "uploadMode": "lfs" if one.endswith(LARGE) else "regular"} for one in names]
        status, content = 200, {"files": [mode | {"shouldIgnore": False} for mode in modes]}
    elif repository is not None and path.endswith("/objects/batch"):
        objects = json.loads(body)["objects"]
        for one in objects:
            one["actions"] = {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}
        status, content = 200, {"transfer": "basic", "objects": objects}
    elif repository is not None and path.endswith("/commit/main"):
        status, content = commit(hub, name[1], repository, body)
    elif repository is not None and request.command == "GET":
        status, content = 200, look(name[1], repository)
    data = json.dumps(content).encode()
    request.send_response(status)
    if status == 403:
        request.send_header("X-Error-Message", content["error"])
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def read_body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("transfer-encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("content-length") or 0))
    data = b""
    while size := int(request.rfile.readline(), 16):
        data += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return data


def create(hub: Hub, asked: dict) -> tuple[int, dict]:
    name = f"{asked['organization']}/{asked['name']}"
    content = {"url": f"{hub.url}/{name}", "name": name}
    if name in hub.repositories:
        return 409, content
    hub.repositories[name] = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
    return 200, content


def commit(hub: Hub, name: str, repository: Repository, body: bytes) -> tuple[int, dict]:
    if hub.refuse:
        return 403, {"error": hub.refuse}
    for line in body.splitlines():
        entry = json.loads(line)
        value = entry["value"]
        if entry["key"] == "header":
            if value.get("parentCommit") not in (None, repository.sha):
                return 412, {"error": "somebody has committed since"}
            repository.commits.append(value["summary"])
        elif entry["key"] == "file":
            repository.files[value["path"]] = base64.b64decode(value["content"])
        elif entry["key"] == "lfsFile":
            repository.files[value["path"]] = hub.large[value["oid"]]
        elif entry["key"] == "deletedFile":
            del repository.files[value["path"]]
    repository.sha = hashlib.sha1(str(sorted(repository.files.items())).encode()).hexdigest()
    return 200, {"commitUrl": f"{hub.url}/{name}/commit/{repository.sha}", "commitOid": repository.sha}


def look(name: str, repository: Repository) -> dict:
    siblings = []
    for path, data in repository.files.items():
        blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
        one = {"rfilename": path, "size": len(data), "blobId": blob}
        if path.endswith(LARGE):
            one["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        siblings.append(one)
    return {"id": name, "sha": repository.sha, "private": repository.private, "tags": [], "siblings": siblings}
