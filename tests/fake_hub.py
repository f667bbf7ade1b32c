"""A hub on the loopback: the few calls of the Hugging Face hub that share and fetch a model, and a note of each."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"


@dataclass
class Repo:
    """commits: id -> {path: content}, the newest last."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    @property
    def newest(self):
        return list(self.commits)[-1] if self.commits else "0" * 40

    def add(self, files):
        name = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[name] = files
        return name


@dataclass
class Hub:
    """address: of the server. repos: by USER/NAME. calls: (method, path) of each request. objects: LFS, by SHA-256."""

    address: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    refuse_uploads: bool = False


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status=200, value=None, content=None, **headers):
        body = json.dumps(value if value is not None else {}).encode() if content is None else content
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.answer(404, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def is_known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def handle_call(self):
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.calls.append((self.command, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command in ("GET", "HEAD"):
            return self.read(path)
        if path.startswith("/lfs/"):
            hub.objects[path.removeprefix("/lfs/")] = body
            return self.answer()
        if not self.is_known() or hub.refuse_uploads:
            return self.answer(403 if self.is_known() else 401, {"error": "you may not write here"})
        return self.write(path, body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_call  # noqa: N815

    def read(self, path):
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4]) if parts[0] == "api" else "/".join(parts[:2])
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.is_known()):
            return self.missing("RepoNotFound")
        # /api/models/USER/NAME/revision/REVISION, or /USER/NAME/resolve/REVISION/PATH
        place = 5 if parts[0] == "api" else 3
        asked = parts[place] if len(parts) > place else "main"
        commit = repo.newest if asked == "main" else asked
        if commit not in repo.commits and (repo.commits or asked != "main"):
            return self.missing("RevisionNotFound")
        files = repo.commits.get(commit, {})
        if parts[0] == "api":
            about = [{"rfilename": each, "size": self.hub.sizes.get(each, len(files[each]))} for each in files]
            return self.answer(value={"id": name, "sha": commit, "private": repo.private, "siblings": about})
        content = files.get("/".join(parts[4:]))
        if content is None:
            return self.missing("EntryNotFound")
        tag = hashlib.sha256(content).hexdigest()
        return self.answer(content=content, X_Repo_Commit=commit, ETag=f'"{tag}"', X_Linked_Size=str(len(content)))

    def write(self, path, body):
        hub = self.hub
        if path == "/api/validate-yaml":
            return self.answer()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'anna'}/{asked['name']}"
            hub.repos[name] = Repo(bool(asked.get("private") or asked.get("visibility") == "private"))
            return self.answer(value={"url": f"{hub.address}/{name}"})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self.answer(value={"transfer": "basic", "objects": objects})
        _, _, _, user, repo, action, _ = path.split("/")
        if action == "preupload":
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in files
            ]
            return self.answer(value={"files": modes})
        assert action == "commit"
        own = hub.repos[f"{user}/{repo}"]
        files = dict(own.commits.get(own.newest, {}))
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commit = own.add(files)
        url = f"{hub.address}/{user}/{repo}/commit/{commit}"
        return self.answer(value={"success": True, "commitUrl": url, "commitOid": commit, "hookOutput": ""})


@contextmanager
def running_hub():
    """A hub that answers on 127.0.0.1 while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
