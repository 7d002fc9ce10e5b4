"""Names, versions, remotes that fail, processes that race, publishing: on loopback."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest
from registry_servers import FileServer, Hub, model_folder, running

from transientnet.errors import (
    ContractError,
    ModelIntegrityError,
    ModelNotFoundError,
    ModelUnavailableError,
    UsageError,
)
from transientnet.models.classifier import load_model
from transientnet.models.record import ModelRecord, Source
from transientnet.models.registry import download
from transientnet.models.registry import resolve as registry
from transientnet.models.registry.cache import Cache
from transientnet.models.registry.fetch import Location
from transientnet.models.registry.manifest import Manifest, bundled_folder, bundled_manifest
from transientnet.models.registry.publish import publish
from transientnet.models.vectors import run_test_vectors

ROOT = Path(__file__).resolve().parents[2]
RESOLVE = "from transientnet.models.registry.resolve import resolve"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("made") / "nightly")


@pytest.fixture(scope="module")
def published(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "registry"
    publish(model_dir, str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "TRANSIENTNET_REGISTRY",
        "TRANSIENTNET_OFFLINE",
        "HF_HUB_OFFLINE",
        "HTTP_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("TRANSIENTNET_CACHE", str(folder))
    return folder


@pytest.fixture
def server(published: Path) -> Iterator[FileServer]:
    server = FileServer(published)
    with running(server):
        yield server


def _no_leftovers(cache: Path) -> None:
    assert not list(cache.glob("models/*.onnx"))


# What is bundled


def test_manifest_holds_its_schema_and_names_every_bundled_file() -> None:
    schema = json.loads((ROOT / "transientnet/weights_manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(bundled_manifest().read_text()), schema)
    fields = {field.name for field in dataclasses.fields(ModelRecord)}
    assert set(schema["$defs"]["model"]["properties"]) == fields
    assert set(schema["$defs"]["source"]["properties"]) == {f.name for f in dataclasses.fields(Source)}
    named = {record.file for record in Manifest.read(bundled_manifest()).records}
    assert named == {path.name for path in bundled_folder().glob("*.onnx")}
    for found in registry.local_models():
        if found.location is None:
            registry.verified_files(found)


def test_schema_holds_for_a_published_registry_and_refuses_what_the_classes_refuse(published: Path) -> None:
    schema = json.loads((ROOT / "transientnet/weights_manifest.schema.json").read_text())
    data = json.loads((published / "weights_manifest.json").read_text())
    jsonschema.validate(data, schema)
    for field, value in {
        "sha256": "x",
        "file": "../a.onnx",
        "version": "1",
        "status": "new",
        "classes": ["a"],
        "sources": [{"kind": "hf", "repo": "a/b", "revision": "main"}],
    }.items():
        wrong = json.loads(json.dumps(data))
        wrong["models"][0][field] = value
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        with pytest.raises(ContractError, match=field.rstrip("s")[:6]):
            Manifest.parse(json.dumps(wrong), "manifest")


def test_two_manifests_that_differ_are_an_error_naming_both(tmp_path: Path) -> None:
    package = tmp_path / "transientnet"
    package.mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "weights_manifest.json").write_text("{}")
    (package / "weights_manifest.json").write_text("{ }")
    with pytest.raises(ContractError, match="differ") as caught:
        bundled_manifest(package)
    assert str(package / "weights_manifest.json") in str(caught.value)
    assert str(tmp_path / "weights_manifest.json") in str(caught.value)


def test_manifest_and_metadata_that_differ_are_an_error_naming_the_fields(
    model_dir: Path, tmp_path: Path
) -> None:
    data = json.loads((model_dir / "weights_manifest.json").read_text())
    data["models"][0]["classes"] = ["real", "bogus"]
    data["models"][0]["contract"]["softening"] = 3.0
    (tmp_path / "weights_manifest.json").write_text(json.dumps(data))
    (tmp_path / "model.onnx").write_bytes((model_dir / "model.onnx").read_bytes())
    with pytest.raises(ContractError, match="differ in classes, contract"):
        registry.resolve(f"{tmp_path}/")


def test_metadata_is_read_without_onnxruntime() -> None:
    code = f"import sys; {RESOLVE}; resolve('4class'); print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"onnxruntime", "huggingface_hub", "requests", "pooch"} & set(modules.stdout.split())


# Names and versions


def test_versions(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "registry"
    for version, status in (("1.0.0", "stable"), ("1.2.0", "stable"), ("1.10.0", "experimental")):
        publish(model_folder(tmp_path / version, version=version, status=status), str(folder))
    picked = {
        wanted: registry.resolve(f"{folder}#nightly{wanted}")[1].version
        for wanted in ("", "@1", "@1.2", "@1.0.0")
    }
    assert picked == {"": "1.2.0", "@1": "1.10.0", "@1.2": "1.2.0", "@1.0.0": "1.0.0"}
    with pytest.raises(ModelNotFoundError, match="holds nightly"):
        registry.resolve(f"{folder}#nightly@2")
    changed = model_folder(tmp_path / "changed", version="1.0.0", description="other bytes")
    before = (folder / "nightly-1.0.0.onnx").read_bytes()
    with pytest.raises(ModelIntegrityError, match="already published"):
        publish(changed, str(folder))
    assert (folder / "nightly-1.0.0.onnx").read_bytes() == before


def test_deprecated_model_warns_with_its_successor(tmp_path: Path, cache: Path) -> None:
    folder = model_folder(tmp_path / "old", status="deprecated", successor="nightly@2.0.0")
    with pytest.warns(registry.DeprecatedModelWarning, match=r"use nightly@2\.0\.0"):
        registry.resolve(f"{folder}/")


def test_wrong_names_say_what_there_is(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean realbogus"):
        registry.resolve("realbogs")
    with pytest.raises(ModelNotFoundError, match="not the name of a model"):
        registry.resolve("Real Bogus!")
    with pytest.raises(UsageError, match="hf://org/repo"):
        registry.resolve("hf://only-one")
    (tmp_path / "nightly").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"write \./nightly"):
        registry.resolve("nightly")


# Remotes


def test_http_registry_by_name_then_offline_without_a_socket(
    server: FileServer, cache: Path, monkeypatch: pytest.MonkeyPatch, published: Path
) -> None:
    monkeypatch.setenv("TRANSIENTNET_REGISTRY", server.url)
    assert "nightly@1.0.0" in [record.id for record in registry.list_models()]
    (record, path), *_ = registry.pull("nightly")
    assert path.read_bytes() == (published / "nightly-1.0.0.onnx").read_bytes()
    found = registry.find("nightly")
    classifier = load_model("nightly")
    assert run_test_vectors(classifier, registry.verified_files(found)[1]).worst < 1e-4  # type: ignore[arg-type]

    class Forbidden(socket.socket):
        def __new__(cls, *args: object, **kwargs: object) -> Forbidden:
            raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", Forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", Forbidden.__new__)
    asked = len(server.requests)
    for offline in (True, False):
        assert registry.resolve("nightly", offline=offline) == (path, record)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert registry.resolve("realbogus")[1].name == "realbogus"
    with pytest.raises(ModelUnavailableError, match="offline"):
        registry.pull("nightly")
    assert registry.remove("nightly")
    with pytest.raises(ModelUnavailableError, match="models pull"):
        registry.resolve("nightly")
    assert len(server.requests) == asked


@pytest.mark.parametrize("length", ["-5", "1e4", "\u00b2", "9" * 5000, "many"])
def test_an_odd_length_in_the_headers_is_no_obstacle(server: FileServer, cache: Path, length: str) -> None:
    server.faults[".onnx"] = f"length {length}"
    assert registry.resolve(f"{server.url}#nightly")[0].is_file()


def test_other_bytes_under_the_same_version_are_refused_until_the_old_are_removed(
    server: FileServer, cache: Path, published: Path, tmp_path: Path
) -> None:
    server.folder = tmp_path / "served"
    shutil.copytree(published, server.folder)
    name = f"{server.url}#nightly"
    ((old, path),) = registry.pull(name)
    other = model_folder(tmp_path / "changed", description="other bytes")
    shutil.rmtree(server.folder)
    publish(other, str(server.folder))
    new = Manifest.read(server.folder / "weights_manifest.json").records[0]
    for address in (name, server.url):
        with pytest.raises(ModelIntegrityError, match="models remove") as caught:
            registry.pull(address)
        assert old.sha256 in str(caught.value)
        assert new.sha256 in str(caught.value)
    # Nothing has changed, on the disk or in what the name means.
    assert registry.resolve(name) == (path, old)
    assert registry.resolve(name, offline=True) == (path, old)
    registry.remove(name)
    ((pulled, fetched),) = registry.pull(name)
    assert pulled.sha256 == new.sha256
    assert fetched.read_bytes() == (server.folder / "nightly-1.0.0.onnx").read_bytes()


def test_a_changed_version_in_one_registry_is_not_taken_from_the_next(
    server: FileServer, cache: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSIENTNET_REGISTRY", f"{server.url},{published}")
    server.folder = tmp_path / "served"
    shutil.copytree(published, server.folder)
    registry.pull("nightly")
    shutil.rmtree(server.folder)
    publish(model_folder(tmp_path / "changed", description="other bytes"), str(server.folder))
    with pytest.raises(ModelIntegrityError, match="never changes"):
        registry.pull("nightly")


def test_a_folder_is_named_with_and_without_a_dot(
    published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(published.parent)
    for name in (
        "registry#nightly",
        "./registry#nightly@1",
        "registry/",
        "registry/#nightly",
        Path("registry"),
    ):
        assert registry.resolve(name)[1].id == "nightly@1.0.0"
    assert registry.find("registry#nightly").record.id == "nightly@1.0.0"
    # Copying from a folder opens no connection.
    assert registry.pull("registry#nightly", offline=True)[0][1].is_relative_to(cache)
    with pytest.raises(ModelUnavailableError, match="no-such"):
        registry.resolve("no-such#nightly")


@pytest.mark.parametrize(
    "address", ["https://example.org/models#nightly", "hf://team/models", "doi:10.5281/z.1"]
)
def test_offline_errors_speak_of_the_network(cache: Path, address: str) -> None:
    for ask in (registry.resolve, registry.pull):
        with pytest.raises(ModelUnavailableError, match="offline was asked for, so no connection was opened"):
            ask(address, offline=True)


def test_a_user_without_a_home_is_asked_for_a_folder(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "TRANSIENTNET_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelUnavailableError, match="TRANSIENTNET_CACHE"):
        registry.resolve(f"{server.url}#nightly")
    assert not list(tmp_path.glob("~*"))


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("404", ModelUnavailableError, "404.*check the address"),
        ("403", ModelUnavailableError, "forbids"),
        ("503", ModelUnavailableError, "another mirror"),
        ("html", ModelIntegrityError, "web page instead of the file"),
        ("flipped", ModelIntegrityError, "sha256"),
        ("longer", ModelIntegrityError, "more than the"),
        ("unbounded", ModelIntegrityError, "more than the"),
        ("cut", ModelUnavailableError, "cut 3 times"),
        ("silent", ModelUnavailableError, "no answer|cut|gave up"),
        ("drip", ModelUnavailableError, "gave up"),
        ("headers", ModelUnavailableError, "only 0 bytes.*gave up"),
        ("length 99999999999", ModelIntegrityError, "more than the"),
        ("redirect", ModelUnavailableError, "ftp"),
    ],
)
def test_a_server_that_misbehaves_is_a_clear_error(
    server: FileServer,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.4)
    monkeypatch.setattr(download, "PATIENCE_S", 0.5)
    server.faults[".onnx"] = fault
    started = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        registry.resolve(f"{server.url}#nightly")
    # The server would go on for eight seconds.
    assert fault != "headers" or time.monotonic() - started < 6
    assert server.url in str(caught.value) or "nightly" in str(caught.value)
    _no_leftovers(cache)
    server.faults.clear()
    assert registry.resolve(f"{server.url}#nightly")[0].is_file()


def test_a_cut_transfer_goes_on_where_it_stopped(server: FileServer, cache: Path) -> None:
    server.faults[".onnx"] = "cut once"
    assert registry.resolve(f"{server.url}weights_manifest.json#nightly")[0].is_file()
    assert [bool(span) for path, span in server.requests if path.endswith(".onnx")] == [False, True]


def test_what_a_killed_process_left_is_used_or_thrown_away(server: FileServer, cache: Path) -> None:
    record = registry.find(f"{server.url}#nightly").record
    part = Cache(cache).model(record)
    part = part.with_name(part.name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"rubbish" * 1000)
    path, _ = registry.resolve(f"{server.url}#nightly")
    assert path.stat().st_size == record.size_bytes
    assert not part.exists()


def test_a_spoiled_cache_is_an_error_offline_and_mended_online(server: FileServer, cache: Path) -> None:
    path, _ = registry.resolve(f"{server.url}#nightly")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelIntegrityError, match="sha256"):
        registry.resolve(f"{server.url}#nightly", offline=True)
    registry.resolve(f"{server.url}#nightly")


def test_a_proxy_that_is_down_is_named_without_its_password(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ModelUnavailableError, match=r"through the proxy 127\.0\.0\.1:9") as caught:
        registry.resolve("http://registry.invalid/#nightly")
    assert "secret" not in str(caught.value)


def test_a_cache_that_cannot_be_written_names_the_variable(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRANSIENTNET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelUnavailableError, match="TRANSIENTNET_CACHE"):
        registry.resolve(f"{server.url}#nightly")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="file permissions are POSIX")
def test_a_cache_that_may_only_be_read_serves_what_it_holds(
    server: FileServer, cache: Path, tmp_path: Path
) -> None:
    found, _ = registry.resolve(f"{server.url}#nightly")
    code = (
        "import os, sys\n"
        "from transientnet.models.registry.resolve import resolve\n"
        "from transientnet.errors import ModelUnavailableError\n"
        # The superuser may write anywhere: become somebody else, once all modules have been used.
        "cache, os.environ['TRANSIENTNET_CACHE'] = os.environ['TRANSIENTNET_CACHE'], sys.argv[2]\n"
        "resolve(sys.argv[1] + '#other')\n"
        "os.environ['TRANSIENTNET_CACHE'] = cache\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        f"print(resolve('{server.url}#nightly', offline=True)[0])\n"
        "try: resolve(sys.argv[1] + '#other')\n"
        "except ModelUnavailableError as error: print(error)\n"
    )
    other = tmp_path / "other"
    publish(model_folder(tmp_path / "made", name="other"), str(other))
    for folder in (
        cache,
        *(parent for parent in cache.parents if Path(tempfile.gettempdir()) in parent.parents),
    ):
        folder.chmod(0o755)
    for file in cache.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    before = sorted(cache.rglob("*"))
    for file in [cache, *filter(Path.is_dir, before)]:
        file.chmod(0o555)
    second = FileServer(other)
    try:
        with running(second):
            run = subprocess.run(
                [sys.executable, "-c", code, second.url, str(tmp_path / "warm")],
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
            )
    finally:
        for file in [cache, *filter(Path.is_dir, before)]:
            file.chmod(0o755)
    assert run.returncode == 0, run.stderr
    path, refusal = run.stdout.splitlines()[:2]
    assert Path(path) == found
    assert "TRANSIENTNET_CACHE" in refusal
    assert sorted(cache.rglob("*")) == before


def test_a_whole_offline_run_opens_no_socket(tmp_path: Path, cache: Path) -> None:
    watch = (
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event.startswith('socket.') and event != 'socket.gethostname':\n"
        "        sys.stderr.write(f'SOCKET {event}\\n')\n"
        "sys.addaudithook(hook)\n"
        "from transientnet.cli import main\n"
        "sys.argv = ['transientnet', *sys.argv[1:]]\n"
        "main()\n"
    )
    examples = ROOT / "docs" / "examples" / "cutouts"
    for arguments, status in (
        (["score", str(examples), "--offline"], 0),
        (["score", str(examples), "--offline", "-m", "https://example.org/models#nightly"], 3),
        (["models", "list"], 0),
        (["models", "verify"], 0),
    ):
        run = subprocess.run(
            [sys.executable, "-c", watch, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        )
        assert run.returncode == status, run.stderr
        assert "SOCKET" not in run.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_disk_that_fills_up_is_a_clear_error(server: FileServer, cache: Path) -> None:
    code = (
        "import resource; from transientnet.models.registry.resolve import resolve\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        f"resolve('{server.url}#nightly')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "no space left" in run.stderr
    assert "TRANSIENTNET_CACHE" in run.stderr
    assert not list(cache.glob("models/*"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork")
def test_twenty_processes_fetch_once(server: FileServer, cache: Path) -> None:
    code = f"""
import os, sys
from transientnet.models.registry.resolve import resolve
children = []
for _ in range(20):
    if not (child := os.fork()):
        try:
            resolve('{server.url}#nightly')
        except BaseException as error:
            print(error, file=sys.stderr); os._exit(1)
        os._exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert server.gets(".onnx") == 1
    assert len(list(cache.glob("models/*"))) == 1


def test_a_folder_is_used_in_place_and_pulled_to_the_cache(
    published: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRANSIENTNET_REGISTRY", str(published))
    assert registry.resolve("nightly")[0] == published / "nightly-1.0.0.onnx"
    assert not cache.exists()
    (_, path), *_ = registry.pull("nightly")
    assert path.is_relative_to(cache)
    monkeypatch.delenv("TRANSIENTNET_REGISTRY")
    assert registry.resolve("nightly", offline=True)[0] == path


def test_doi_becomes_the_archives_address(
    server: FileServer, cache: Path, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooch = pytest.importorskip("pooch.downloaders")
    files = [{"key": p.name, "links": {"self": server.url + p.name}} for p in published.glob("[nw]*")]
    (published / "7").write_text(json.dumps({"files": files}))
    monkeypatch.setattr(pooch, "doi_to_url", lambda doi, **_: f"https://zenodo.org/records/{doi[-1]}")
    monkeypatch.setattr(pooch.ZenodoRepository, "base_api_url", server.url.rstrip("/"))
    assert registry.resolve("doi:10.5281/zenodo.7#nightly")[1].id == "nightly@1.0.0"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("https://x.org/models", "https://x.org/models/"),
        ("https://x.org/models/weights_manifest.json", "https://x.org/models/"),
        ("hf://team/models@abc", "hf://team/models@abc"),
        ("doi:10.5281/zenodo.1/", "doi:10.5281/zenodo.1"),
        ("/shared/models/", "/shared/models"),
    ],
)
def test_one_spelling_per_registry(text: str, same: str) -> None:
    assert str(Location.parse(text)) == same
    assert Location.parse(same) == Location.parse(text)


# Hugging Face, in processes of their own: its client reads the environment when it is imported


def _run(code: str, hub: Hub, cache: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(cache / "hf"),
            "HF_TOKEN": "hf_test",
            "TRANSIENTNET_CACHE": str(cache),
            "PYTHONPATH": str(ROOT),
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_publish_to_the_hub_and_score_elsewhere(model_dir: Path, tmp_path: Path, cache: Path) -> None:
    hub = Hub()
    score = (
        "import numpy as np; from transientnet import load_model\n"
        "c = load_model('hf://team/models#nightly')\n"
        "x = np.random.default_rng(0).normal(size=(3, 63, 63))\n"
        "print(c.record.id, c.predict(x).probabilities.tolist())"
    )
    with running(hub):
        made = _run(
            "from transientnet.models.registry.publish import publish\n"
            f"print(publish({str(model_dir)!r}, 'hf://team/models')[0])",
            hub,
            tmp_path / "a",
        )
        assert made.stdout.strip() == f"hf://team/models@{hub.main}", made.stderr
        assert set(hub.commits[hub.main]) >= {
            "weights_manifest.json",
            "nightly-1.0.0.onnx",
            "nightly-1.0.0.npz",
            "nightly-1.0.0.md",
            "README.md",
        }
        first = _run(score, hub, cache)
        assert first.stdout.startswith("nightly@1.0.0 [["), first.stderr
        entry = json.loads(next(cache.glob("registries/*.json")).read_text())
        assert entry["pinned"]["revision"] == hub.main
        missing = _run(
            "from transientnet.models.registry.resolve import resolve; resolve('hf://team/none#x')",
            hub,
            cache,
        )
        assert "no such repository" in missing.stderr
        wrong = hub.add({"nightly-1.0.0.onnx": b"not the model" * 9})
        spoiled = _run(score.replace("models#", f"models@{wrong}#"), hub, tmp_path / "b")
        assert "ModelIntegrityError" in spoiled.stderr
    again = _run(score, hub, cache, HF_HUB_OFFLINE="1")
    assert again.stdout == first.stdout


def test_a_hub_that_dribbles_its_headers_is_given_up(cache: Path) -> None:
    hub = Hub()
    hub.dribbles = True
    with running(hub):
        run = _run(
            "import time; from transientnet.models.registry import download, resolve\n"
            "download.PATIENCE_S, started = 0.5, time.monotonic()\n"
            "try: resolve.resolve('hf://team/models#nightly')\n"
            "except OSError as error: print(type(error).__name__, error)\n"
            "print(time.monotonic() - started < 7)",
            hub,
            cache,
        )
    assert run.stdout.startswith("ModelUnavailableError"), run.stderr
    assert "gave up" in run.stdout
    assert run.stdout.splitlines()[-1] == "True"


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def test_command_line_round_trip(
    model_dir: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transientnet.cli import main

    monkeypatch.setenv("TRANSIENTNET_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def run(*args: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["transientnet", *args])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    assert run("models", "publish", str(model_dir), "--to", str(tmp_path / "registry")).returncode == 0
    assert "nightly@1.0.0" in run("models", "list").stdout
    pulled = run("models", "pull", "--all")
    assert pulled.returncode == 0, pulled.stderr
    good = run("models", "verify", "nightly")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "test vectors on cpu" in good.stdout
    path = Path(run("models", "path", "nightly").stdout.strip())
    path.write_bytes(b"x" * path.stat().st_size)
    bad = run("models", "verify", "nightly")
    assert bad.returncode == 1
    assert "sha256" in bad.stdout
    doctor = run("doctor")
    assert doctor.returncode == 1
    assert "BROKEN" in doctor.stdout
    assert run("models", "remove", "nightly").returncode == 0
    assert run("models", "path", "no-such").returncode == 3
