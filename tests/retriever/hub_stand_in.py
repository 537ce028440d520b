"""A server on the loopback address that answers as far as the Hugging Face Hub's clients ask."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "1" * 40
TOKEN = "hf_right"


class StandIn(ThreadingHTTPServer):
    """Keeps repositories in memory; takes :data:`TOKEN` alone.

    Attributes:
        repositories: by name the files of each.
        private: by name whether it is.
        objects: what was uploaded by its SHA-256.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            name = name if "/" in name else f"someone/{name}"
            self.repositories.setdefault(name, {})
            # The older clients say `private`, the newer ones `visibility`.
            private = asked.get("private") or asked.get("visibility") == "private"
            self.server.private[name] = bool(private)
            return self._json({"url": f"{self.server.address}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        parts = self.path.strip("/").split("/")
        if "preupload" in parts:
            large = (".safetensors",)
            files = [
                {
                    "path": x["path"],
                    "uploadMode": "lfs" if x["path"].endswith(large) else "regular",
                    "shouldIgnore": False,
                }
                for x in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**x, "actions": {"upload": {"href": f"{self.server.address}/put/{x['oid']}"}}}
                for x in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if "commit" in parts:
            files = self.repositories["/".join(parts[2:4])]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
            url = f"{self.server.address}/{'/'.join(parts[2:4])}/commit/{COMMIT}"
            return self._json({"commitUrl": url, "commitOid": COMMIT})
        self._json({"error": self.path}, 404)

    def do_PUT(self) -> None:
        body = self._body()
        assert hashlib.sha256(body).hexdigest() == self.path.rsplit("/", 1)[1]
        self.server.objects[self.path.rsplit("/", 1)[1]] = body
        self._json({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name not in self.repositories:
                return self._json({"error": "Repository not found"}, 404)
            if parts[4:5] == ["tree"]:  # huggingface_hub 1 and later ask for it
                tree = [
                    {"type": "file", "path": file, "size": len(x), "oid": COMMIT}
                    for file, x in sorted(self.repositories[name].items())
                ]
                return self._json(tree)
            files = [{"rfilename": file} for file in sorted(self.repositories[name])]
            return self._json({"id": name, "sha": COMMIT, "siblings": files, "private": False})
        if "resolve" in parts:
            content = self.repositories["/".join(parts[:2])].get("/".join(parts[4:]))
            if content is None:
                return self._json({"error": "Entry not found"}, 404)
            digest = hashlib.sha256(content).hexdigest()
            return self._send(content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
        self._json({"error": self.path}, 404)

    @property
    def repositories(self) -> dict[str, dict[str, bytes]]:
        return self.server.repositories

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
