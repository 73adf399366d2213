"""Downloads from a small server on the loopback address that answers as the Hugging Face hub does."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants, file_download

from embedpack.errors import CapacityError, CheckpointError, EmbedpackError, MissingExtraError
from embedpack_export.sources.checkpoint import read_checkpoint
from embedpack_export.sources.hub import Downloaded, download, is_repository
from tests.helpers.exports import exactly, tree
from tests.helpers.tiny_checkpoint import make_checkpoint

NAME = "tiny-lab/tiny-model"
FIRST, SECOND = "1" * 40, "2" * 40
TOKEN = "hf_notARealTokenButSecret"
WEIGHTS = "model.safetensors"
EXTRA = {
    "README.md": b"---\nlicense: mit\n---\n",
    "LICENSE": b"terms\n",
    "preprocessor_config.json": b'{"size": 8}',
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "artifact.metadata": b'{"query_maxlen": 32}',
    "chat_template.jinja": b"{{ messages }}",
    "adapters/retrieval/adapter_config.json": b"{}",
    "adapters/retrieval/adapter_model.safetensors": b"not read here",
    "adapters/model-like/adapter_model.safetensors": b"nor this one",
}
FORBIDDEN = (
    "modeling_tiny.py",
    "pytorch_model.bin",
    "model.pt",
    "onnx/model.onnx",
    "adapters/retrieval/custom.py",
    "adapters/retrieval/adapter_model.bin",
    "adapters/LICENSE.py",
    "LICENSE.bin",
    "checkpoint-500/model.safetensors",
    "checkpoint-500/model-00001-of-00002.safetensors",
    "training_args.json",
)


@dataclass
class Hub:
    """State of the server; `log` holds method, path below the repository, and the Range header."""

    commits: dict[str, Mapping[str, bytes]]
    main: str = FIRST
    refusal: Callable[[str], tuple[int, str] | None] = lambda path: None
    # Bytes after which the next answers with this file break off.
    breaks: dict[str, list[int]] = field(default_factory=dict)
    etag: Callable[[bytes], str] = lambda content: f'"{hashlib.sha256(content).hexdigest()}"'
    more_headers: Mapping[str, str] = field(default_factory=dict)
    after_info: Callable[[], object] = lambda: None
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def sent(self, method: str = "GET") -> list[str]:
        return sorted(path.split("/", 4)[4] for verb, path, _ in self.log if verb == method and "/resolve/" in path)


class Server(ThreadingHTTPServer):
    # All files are asked for at once; a connection that does not fit is tried again only after a second.
    request_queue_size = 64


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api, file = f"/api/models/{NAME}", f"/{NAME}/resolve/"
        self.hub.log.append((self.command, path.replace(NAME, ""), self.headers.get("Range")))
        refusal = self.hub.refusal(path)
        if refusal:
            self.refuse(*refusal)
        elif path.startswith(f"{api}/tree/"):
            self.list_tree(path.rsplit("/", 1)[1])
        elif path == api or path.startswith(f"{api}/revision/"):
            self.tell_commit(path.partition("/revision/")[2] or "main")
        elif path.startswith(file):
            self.send_file(*path.removeprefix(file).split("/", 1))
        else:
            self.refuse(404, "RepoNotFound")

    def refuse(self, status: int, code: str) -> None:
        """A hostile server: it sends the token back."""
        given = str(self.headers.get("Authorization"))
        self.answer(json.dumps({"error": given}).encode(), status, {"X-Error-Code": code, "X-Error-Message": given})

    def answer(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def tell_commit(self, revision: str) -> None:
        commit = self.hub.main if revision == "main" else revision
        if commit not in self.hub.commits:
            return self.refuse(404, "RevisionNotFound")
        names = [{"rfilename": name} for name in self.hub.commits[commit]]
        self.answer(json.dumps({"id": NAME, "sha": commit, "siblings": names}).encode())
        self.hub.after_info()
        return None

    def list_tree(self, commit: str) -> None:
        if commit not in self.hub.commits:
            return self.refuse(404, "RevisionNotFound")
        rows = [
            {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            for name, content in self.hub.commits[commit].items()
        ]
        return self.answer(json.dumps(rows).encode())

    def send_file(self, revision: str, name: str) -> None:
        commit = self.hub.main if revision == "main" else revision
        content = self.hub.commits[commit][name]
        headers = {"ETag": self.hub.etag(content), "X-Repo-Commit": commit, **self.hub.more_headers}
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        broken = self.command == "GET" and self.hub.breaks.get(name)
        part = content[start : start + broken.pop(0)] if broken else content[start:]
        self.answer(part, 206 if asked else 200, {**headers, "Content-Length": str(len(content) - start)})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return {**tree(make_checkpoint(tmp_path_factory.mktemp("made") / "toy")), **EXTRA}


@pytest.fixture
def hub(model: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running server, with huggingface_hub of this process set to it and to an empty cache."""
    later = {**model, "README.md": b"the second commit", "config.json": b'{"model_type": "moved"}'}
    hub = Hub({FIRST: {**model, **dict.fromkeys(FORBIDDEN, b"never fetch this")}, SECOND: later})
    with Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub})) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        turn_to(hub.url, tmp_path / "home", monkeypatch)
        yield hub
        close_session()
        server.shutdown()
        thread.join()


def turn_to(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Effects of HF_ENDPOINT and HF_HOME on the import of huggingface_hub; no waits between its attempts."""
    close_session()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    changes = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_OFFLINE": False,
    }
    for name, value in changes.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def stopped(path: str) -> tuple[int, str]:
    return 503, ""


def refuse(
    message: str, revision: str | None = None, kind: type[EmbedpackError] = CheckpointError, name: str = NAME
) -> str:
    """Assert that the download fails with this message; returns the traceback that a user would see."""
    with pytest.raises(kind, match=exactly(message)) as caught:
        download(name, revision)
    return "".join(traceback.format_exception(caught.value))


def check_folder(result: Downloaded, model: Mapping[str, bytes]) -> None:
    """The folder holds exactly this model."""
    assert {name: (result.folder / name).read_bytes() for name in model} == model
    held = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    assert held == set(model)


# --- names


@pytest.mark.parametrize("name", ["sentence-transformers/all-MiniLM-L6-v2", "a/b", "BAAI/bge-m3", "o_1/m.v2_", "1/2"])
def test_names_of_repositories(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_repository(name)
    (tmp_path / name).mkdir(parents=True)
    assert not is_repository(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "bert",
            "a/b/c",
            "/a/b",
            "./a/b",
            "../b",
            "a/..",
            "./b",
            "~/b",
            "a/b/",
            "a//b",
            "a/-b",
            "a/b-",
            "a/b.git",
        ),
        *("a/b--c", "a/b..c", "a/b c", "a/é", "a/b\n", "C:\\a/b", "https://huggingface.co/a/b", "a/" + "b" * 97),
    ],
)
def test_other_names(name: str) -> None:
    assert not is_repository(name)


# --- files


def test_the_wanted_files_arrive_and_no_others(hub: Hub, model: dict[str, bytes]) -> None:
    result = download(NAME, None)
    assert (result.name, result.revision) == (NAME, FIRST)
    check_folder(result, model)
    assert hub.sent() == hub.sent("HEAD") == sorted(model)
    assert set(read_checkpoint(result.folder).tensors) > {"embeddings.word_embeddings.weight"}


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_branch_that_moves_meanwhile_mixes_nothing(hub: Hub, model: dict[str, bytes], revision: str | None) -> None:
    hub.after_info = lambda: setattr(hub, "main", SECOND)
    result = download(NAME, revision)
    assert result.revision == FIRST
    check_folder(result, model)
    assert download(NAME, revision).revision == SECOND


def test_a_commit_is_taken_and_asked_for_once(hub: Hub) -> None:
    assert download(NAME, SECOND).revision == SECOND
    hub.log.clear()
    result = download(NAME, SECOND)
    assert (result.folder / "README.md").read_bytes() == b"the second commit"
    assert hub.log == []


def with_modules(hub: Hub, *paths: str, **files: bytes) -> None:
    """The first commit with these modules after its own, and these files."""
    modules = json.loads(hub.commits[FIRST]["modules.json"])
    modules += [{"path": path, "type": "sentence_transformers.models.Dense"} for path in paths]
    hub.commits[FIRST] = {**hub.commits[FIRST], "modules.json": json.dumps(modules).encode(), **files}


def test_modules_json_names_the_folders_of_modules(hub: Hub) -> None:
    wanted = ("2_Dense/config.json", "2_Dense/model.safetensors", "head[1]/config.json", "head[1]/model.safetensors")
    others = ("2_Dense/code.py", "2_Dense/old/model.safetensors", "3_Dense/model.safetensors", "head1/config.json")
    with_modules(hub, "2_Dense", "head[1]", **dict.fromkeys((*wanted, *others), b"{}"))
    folder = download(NAME, None).folder
    assert [name for name in (*wanted, *others) if (folder / name).exists()] == list(wanted)
    hub.log.clear()
    assert download(NAME, FIRST).folder == folder
    assert hub.log == []


@pytest.mark.parametrize("path", ["../2_Dense", "/etc", "a/b"])
def test_modules_elsewhere_are_refused_before_the_weights_are_fetched(hub: Hub, path: str) -> None:
    with_modules(hub, path)
    with pytest.raises(CheckpointError, match=r"modules.json: .*(leads outside of the folder|a folder in a folder)"):
        download(NAME, None)
    assert WEIGHTS not in hub.sent()


def test_weights_of_a_module_that_are_missing_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with_modules(hub, "2_Dense", **{"2_Dense/config.json": b"{}", "2_Dense/model.safetensors": b"x"})
    folder = download(NAME, None).folder
    (folder / "2_Dense/model.safetensors").unlink()
    offline(monkeypatch)
    refuse(
        f"{NAME}: HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold all files of revision 'main'; "
        f"unset it for one run, or run 'hf download {NAME} --local-dir FOLDER' elsewhere and pass the folder"
    )


def test_no_checkpoint(hub: Hub) -> None:
    hub.commits[FIRST] = {"model.gguf": b"x"}
    refuse(
        f"{NAME}: commit {FIRST} has no config.json, so it is no checkpoint of transformers; pass another revision, "
        "or pass a folder instead"
    )


# --- broken connections


def test_a_file_goes_on_where_the_connection_broke(
    hub: Hub, model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.breaks[WEIGHTS] = [5000, 0, 7000]
    check_folder(download(NAME, None), model)
    ranges = [asked for method, path, asked in hub.log if method == "GET" and path.endswith(f"{FIRST}/{WEIGHTS}")]
    assert ranges == [None, "bytes=5000-", "bytes=5000-", "bytes=12000-"]


def test_a_second_run_fetches_only_what_is_missing(hub: Hub, model: dict[str, bytes]) -> None:
    hub.breaks[WEIGHTS] = [0] * 6
    refuse(
        f"{NAME}: the download from {hub.url} failed (RemoteProtocolError); check the network and run it again "
        f"(finished files are kept), or run 'hf download {NAME} --local-dir FOLDER' elsewhere and pass the folder"
    )
    snapshot = Path(constants.HF_HUB_CACHE) / "models--tiny-lab--tiny-model" / "snapshots" / FIRST
    finished = {name for name in model if (snapshot / name).is_file()}
    hub.log.clear()
    check_folder(download(NAME, None), model)
    assert finished
    assert hub.sent() == sorted(model.keys() - finished)


def test_server_down(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        closed = f"http://mirror:{TOKEN}@127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    shown = refuse(
        f"{NAME}: the download from {closed.replace(f'mirror:{TOKEN}@', '')} failed (Connection refused); check the "
        f"network and run it again (finished files are kept), or run 'hf download {NAME} --local-dir FOLDER' "
        "elsewhere and pass the folder"
    )
    assert TOKEN not in shown


def test_server_in_trouble(hub: Hub) -> None:
    hub.refusal = stopped
    refuse(f"{NAME}: {hub.url} answered with status 503; try again later, or pass a folder instead")


def test_server_in_trouble_with_a_copy_in_the_cache(hub: Hub, model: dict[str, bytes]) -> None:
    first = download(NAME, None)
    hub.refusal = stopped
    assert download(NAME, None) == first
    check_folder(first, model)


def test_something_else_answers(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def sign_in_page(handler: Handler) -> None:
        handler.answer(b"<html>Please sign in</html>")

    monkeypatch.setattr(Handler, "do_GET", sign_in_page)
    refuse(
        f"{NAME}: the download from {hub.url} failed (JSONDecodeError); check the network and run it again "
        f"(finished files are kept), or run 'hf download {NAME} --local-dir FOLDER' elsewhere and pass the folder"
    )


# --- refusals


def test_no_such_repository(hub: Hub) -> None:
    refuse(
        f"tiny-lab/nothing: no such folder, and {hub.url} has no such repository for you; check the "
        "name, set HF_TOKEN if the repository is private, or pass a folder instead",
        name="tiny-lab/nothing",
    )


@pytest.mark.parametrize("revision", ["v9", "3" * 40])
def test_no_such_revision(hub: Hub, revision: str) -> None:
    refuse(
        f"{NAME}: {hub.url} has it, but no revision {revision!r} of it; pass a branch, a tag or a full commit hash "
        "that it has, or pass a folder instead",
        revision,
    )


@pytest.mark.parametrize("revision", ["", "../../outside", "/outside"])
def test_no_name_of_a_revision(hub: Hub, revision: str) -> None:
    refuse(f"{NAME}: {revision!r} cannot name a revision; pass a branch, a tag or a commit hash", revision)
    assert hub.log == []


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("part", ["/api/", "/resolve/"])
def test_gated(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int, part: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refusal = lambda path: (status, "GatedRepo") if part in path else None
    shown = refuse(
        f"{NAME}: {hub.url} requires that its terms are accepted; accept them at {hub.url}/{NAME} and set "
        "HF_TOKEN to a token of that account, or pass a folder instead"
    )
    assert TOKEN not in shown + "".join(capfd.readouterr())


def test_token_not_accepted(hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.refusal = lambda path: (401, "")
    shown = refuse(f"{NAME}: {hub.url} answered with status 401; check HF_TOKEN, or pass a folder instead")
    assert TOKEN not in shown + "".join(capfd.readouterr())


def test_token_that_no_header_can_hold(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The HTTP library quotes the header, with the token in it."""
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\vmore")
    shown = refuse(
        f"{NAME}: the download from {hub.url} failed (LocalProtocolError); check the network and run it again "
        f"(finished files are kept), or run 'hf download {NAME} --local-dir FOLDER' elsewhere and pass the folder"
    )
    assert TOKEN not in shown + "".join(capfd.readouterr())


# --- hostile or broken answers


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.mark.parametrize("digest", [git_digest, lambda content: hashlib.sha1(content).hexdigest()])
def test_digests_of_small_files(hub: Hub, model: dict[str, bytes], digest: Callable[[bytes], str]) -> None:
    hub.etag = lambda content: f'"{digest(content)}"'
    check_folder(download(NAME, None), model)


@pytest.mark.parametrize("digest", ["0" * 64, "0" * 40])
def test_files_that_differ_from_their_digest(hub: Hub, digest: str) -> None:
    hub.etag = lambda content: f'"{digest}"'
    with pytest.raises(
        CheckpointError, match=f"differs from the hub's digest, {digest[:16]}; remove /.*/blobs/0+, and"
    ):
        download(NAME, None)


def test_a_cache_that_was_changed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (download(NAME, None).folder / "config.json").resolve().write_bytes(b"{}")
    offline(monkeypatch)
    with pytest.raises(CheckpointError, match="differs from the hub's digest"):
        download(NAME, None)


def test_a_mirror_without_digests(hub: Hub, model: dict[str, bytes], caplog: pytest.LogCaptureFixture) -> None:
    hub.etag = lambda content: f'W/"{len(content)}-mirror"'
    check_folder(download(NAME, None), model)
    assert {record.getMessage().partition(": ")[2] for record in caplog.records} == {
        "the hub sent no digest of it, so it is not compared with one"
    }


@pytest.mark.parametrize("etag", ['"../../../outside"', '"/outside"', '".."', '"a/b"', '""'])
def test_a_name_that_leads_out_of_the_cache(hub: Hub, tmp_path: Path, etag: str) -> None:
    hub.etag = lambda content: etag
    refuse(f"{NAME}: the hub sent etag {etag!r}, which cannot name a file; check HF_ENDPOINT")
    assert not [path for path in tmp_path.rglob("*outside*") if "pytest" not in path.name]
    assert not list((tmp_path / "home" / "hub").glob("models--*/blobs/*"))


def test_the_name_of_a_large_file_is_that_of_its_place(hub: Hub) -> None:
    """Answers that lead to another server have an ETag of their own as well, which names nothing."""
    digest = hashlib.sha256(b"elsewhere").hexdigest()
    hub.etag, hub.more_headers = (lambda content: 'W/"5b6-a/b+c"'), {"X-Linked-ETag": f'"{digest}"'}
    with pytest.raises(CheckpointError, match=f"differs from the hub's digest, {digest[:16]}"):
        download(NAME, None)
    hub.more_headers = {"X-Linked-ETag": '"../x"'}
    hub.main = SECOND
    refuse(f"{NAME}: the hub sent x-linked-etag '\"../x\"', which cannot name a file; check HF_ENDPOINT")


@pytest.mark.parametrize("commit", ["main", "1" * 39, "g" * 40])
def test_a_commit_that_is_no_hash(hub: Hub, commit: str) -> None:
    hub.commits[commit] = hub.commits[FIRST]
    hub.main = commit
    refuse(f"{NAME}: the hub sent {commit!r} for a commit; check HF_ENDPOINT")


def test_a_file_outside_of_the_repository(hub: Hub, tmp_path: Path) -> None:
    hub.commits[FIRST] = {**hub.commits[FIRST], "adapters/../../../../../outside.json": b"{}"}
    refuse(
        f"{NAME}: {hub.url} sent the name of a file or a value that cannot be used; check HF_ENDPOINT, or pass a "
        "folder instead"
    )
    assert not list(tmp_path.rglob("outside.json"))


# --- offline


def test_offline_with_a_full_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = download(NAME, None)
    offline(monkeypatch)
    hub.log.clear()
    assert download(NAME, None) == download(NAME, "main") == download(NAME, FIRST) == first
    assert hub.log == []


@pytest.mark.parametrize("revision", [None, SECOND])
def test_offline_without_a_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch, revision: str | None) -> None:
    offline(monkeypatch)
    refuse(
        f"{NAME}: HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold all files of revision "
        f"{revision or 'main'!r}; unset it for one run, or run 'hf download {NAME} --local-dir FOLDER' elsewhere and "
        "pass the folder",
        revision,
    )
    assert hub.log == []


def test_offline_with_a_part_in_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (download(NAME, None).folder / WEIGHTS).unlink()
    offline(monkeypatch)
    refuse(
        f"{NAME}: HF_HUB_OFFLINE is set, and {constants.HF_HUB_CACHE} does not hold all files of revision 'main'; "
        f"unset it for one run, or run 'hf download {NAME} --local-dir FOLDER' elsewhere and pass the folder"
    )


# --- this side


@pytest.mark.parametrize(
    "cause",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("IO Error: No space left on device (os error 28)")],
)
def test_disk_full(hub: Hub, monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    def full(*args: object, **options: object) -> NoReturn:
        raise cause

    monkeypatch.setattr(file_download, "http_get", full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 10**6))
    refuse(
        f"{constants.HF_HUB_CACHE}: no room for {NAME}, 3 MB are free; make room or set HF_HOME to a larger disk and "
        "run it again (finished files are kept), or pass a folder instead",
        kind=CapacityError,
    )


def test_cache_that_cannot_be_written(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **options: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", "/cache/blobs/one")

    monkeypatch.setattr(file_download, "http_get", denied)
    refuse(
        "/cache/blobs/one: Permission denied; set HF_HOME to a folder that you may write to, or pass a folder instead"
    )


def test_library_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refuse(
        "this needs 'huggingface_hub', which is not installed. Run: pip install 'embedpack[hub]'",
        kind=MissingExtraError,
    )


def test_environment_of_a_process_of_its_own(hub: Hub, tmp_path: Path, model: dict[str, bytes]) -> None:
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are read when huggingface_hub is imported; no bars outside a terminal."""
    program = f"from embedpack_export.sources.hub import download; print(download({NAME!r}, None).folder)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "own"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    for mode in ("0", "1"):
        hub.log.clear()
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, "HF_HUB_OFFLINE": mode},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        folder = Path(done.stdout.strip())
        assert folder.is_relative_to(tmp_path / "own")
        check_folder(Downloaded(folder, NAME, FIRST), model)
        assert bool(hub.log) == (mode == "0")
