"""Attacks on a running server; the folder of its files; its port."""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnitraining import FewShotClassifier, load
from omnitraining.demo import server
from omnitraining.demo.examples import example
from omnitraining.demo.folder import locked_folder
from omnitraining.demo.protection import MAX_BODY
from omnitraining.errors import InputError

PATIENCE = 120  # seconds, for a busy machine


class Client:
    """A program that sends requests to the demo."""

    def __init__(self, url: str, folder: Path) -> None:
        self.http = pytest.importorskip("httpx").Client(base_url=url, timeout=PATIENCE)
        self.url, self.folder = url, folder
        config = self.http.get("/config").json()
        names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.events = {
            names[event["targets"][0][0]]: event["id"]
            for event in config["dependencies"]
            if event["backend_fn"] and event["targets"]
        }

    def upload(self, paths: list[Path]) -> list[dict[str, Any]]:
        """Uploaded files, as events take them."""
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        return [
            file_data(path) for path in self.http.post("/gradio_api/upload", files=files).json()
        ]

    def event(self, element: str, *inputs: Any, session: str = "") -> str:
        """Everything that the server sends until an event has ended."""
        session = session or secrets.token_hex(6)
        body = {"data": inputs, "fn_index": self.events[element], "session_hash": session}
        self.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        text = ""
        address = "/gradio_api/queue/data"
        with self.http.stream("GET", address, params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                text += line
                if line.startswith("data: ") and '"process_completed"' in line:
                    return text
        raise AssertionError(text)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server in a process of its own."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("server")
    (folder / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", "from omnitraining.cli import main; main(['demo', 'glyphs'])"],
        env={**os.environ, "TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert address is not None
    client = Client(address[0], folder)
    yield client
    client.http.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    assert not [*(folder / "temporary").iterdir()]


def file_data(path: str, **fields: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **fields}


@pytest.mark.slow
def test_two_visitors_add_classes_predict_and_save(client: Client, tmp_path: Path) -> None:
    _, support, queries = example(1, 32)
    (first, second, *_), paths = support.values(), []
    for number, image in enumerate([*first[:3], *second[:3]]):
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    (tmp_path / "broken.png").write_bytes(b"no image")
    for number, image in enumerate(queries[0][:2]):
        image.save(tmp_path / f"query {number}.png")
    asked = [tmp_path / name for name in ("query 1.png", "broken.png", "query 0.png")]
    visitors = {"first": ["ayb", "ben"], "second": ["one", "two"]}
    for session, names in visitors.items():
        for name, part in zip(names, (paths[:3], paths[3:]), strict=True):
            files = client.upload([*part, asked[1]])
            inputs = ("Pictures", name, files, None, None, None, None)
            added = client.event("add", None, *inputs, session=session)
            assert f"<strong>{name}</strong> <span>3 pictures" in added
            assert "broken.png is not an image" in added
        assert "Accuracy on these pictures" in added
    for session, names in visitors.items():
        uploaded = client.upload(asked)
        inputs = ("Upload", uploaded, None, None, None)
        result = client.event("predict", None, *inputs, session=session)
        labels = re.findall(r'omni-label\\?\\?">(?:perhaps )?([^<]*)<', result)
        assert labels == [names[1], names[0]]
        assert result.count("attention map of the") == 6 and "broken.png is not an im" in result
        others = {"one", "two", "ayb", "ben"} - {*names}
        assert not any(f">{name}<" in result for name in others)
        inputs = ("Upload", uploaded[:1], None, None, None)
        assert "4 pictures" in client.event("label", None, names[1], "", *inputs, session=session)
        saved = client.event("save", None, session=session)
        (path,) = set(re.findall(r'"path": ?"([^"]*classes\.learner)"', saved))
        (tmp_path / "classes").write_bytes(client.http.get(f"/gradio_api/file={path}").content)
        learner = load(tmp_path / "classes")
        assert isinstance(learner, FewShotClassifier)
        assert learner.counts_ == {names[0]: 3, names[1]: 4}
        assert learner.predict(asked[::2]).tolist() == labels
        assert "No classes yet" in client.event("clear", None, session=session)


@pytest.mark.slow
def test_folders_and_archives_add_several_classes(client: Client, tmp_path: Path) -> None:
    paths = []
    with zipfile.ZipFile(tmp_path / "letters.zip", "w") as archive:
        for number, (name, images) in enumerate(example(1, 32).support.items()):
            paths.append(tmp_path / f"{number}.png")
            images[0].save(paths[-1])
            archive.write(paths[-1], f"letters/{name}/1.png")
        archive.writestr("letters/notes.txt", "")
        archive.writestr("../../letters/out/1.png", "")
    files, names = client.upload(paths), [f"mine/class {number}/1.png" for number in range(5)]
    added = client.event(
        "add", None, "Folder", "", None, None, None, files, names, session="folder"
    )
    assert "5 pictures of 5 classes." in added and "<strong>class 4</strong>" in added
    assert "One picture of each class" in added
    wrong = client.event("add", None, "Folder", "", None, None, None, files, names[1:])
    assert "did not send the names of the folders" in wrong
    (archived,) = client.upload([tmp_path / "letters.zip"])
    added = client.event("add", None, "Zip", "", None, None, archived, None, None, session="folder")
    assert "5 pictures of 5 classes." in added and "<strong>Ayb" in added
    assert "1 file that is no image by its name (notes.txt)" in added
    assert "Names that lead out of letters.zip were left out" in added
    assert "Take a picture first" in client.event(
        "add", None, "Camera", "a", None, None, None, None, None
    )


@pytest.mark.slow
def test_files_of_the_machine_and_addresses_are_no_uploads(client: Client) -> None:
    private = client.folder / "private.png"
    Image.new("RGB", (9, 9), "red").save(private)
    paths = [str(private), "/etc/passwd", "../../../etc/passwd", "/dev/zero"]
    paths += [f"{client.url}/config", "http://169.254.169.254/", "file:///etc/passwd"]
    for path in paths:
        for file in (file_data(path), file_data(path, url=path)):
            for inputs in (
                ("Pictures", "stolen", [file], None, None, None, None),
                ("Camera", "stolen", None, file, None, None, None),
                ("Zip", "", None, None, file, None, None),
                ("Folder", "", None, None, None, [file], ["mine/stolen/1.png"]),
            ):
                added = client.event("add", None, *inputs)
                assert "omni-classes" not in added and '"success":false' in added
                assert "root:" not in added and "Traceback" not in added
    assert "Ayb" in client.event("start", None), "the server still works"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=FOLDER/private.png",
        "/gradio_api/file=FOLDER/temporary/../private.png",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2fetc/passwd",
        "/monitoring",
        "/docs",
    ],
)
def test_files_outside_of_the_folder_are_not_served(client: Client, path: str) -> None:
    response = client.http.get(path.replace("FOLDER", str(client.folder)))
    assert response.status_code in (400, 403, 404, 405), response.text
    assert "Traceback" not in response.text


@pytest.mark.slow
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_other_names_of_this_machine_are_refused(client: Client, host: str) -> None:
    for path in ("/", "/config"):
        assert client.http.get(path, headers={"host": host}).status_code == 400


@pytest.mark.slow
def test_pages_of_other_sites_and_large_files_are_refused(client: Client) -> None:
    upload, small = "/gradio_api/upload", [("files", ("a.png", b"x"))]
    evil = {"origin": "http://evil.example"}
    assert client.http.post(upload, files=small, headers=evil).status_code == 403
    with closing(HTTPConnection(client.http.base_url.host, client.http.base_url.port)) as large:
        large.putrequest("POST", upload)
        large.putheader("content-length", str(MAX_BODY + 1))
        large.endheaders()
        assert large.getresponse().status == 413
    assert client.http.post(upload, files=small).status_code == 200
    wrong = [b"", b"{", b"[" * 50_000, json.dumps({"data": []}).encode()]
    for body in wrong:
        assert client.http.post("/gradio_api/queue/join", content=body).status_code in (400, 422)


def test_folders_of_servers_that_were_killed_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other, kept = tmp_path / "omni-other", tmp_path / "kept"
    for folder in (other, kept, tmp_path / "omni-demo-left" / "x"):
        folder.mkdir(parents=True)
    (tmp_path / "omni-demo-left" / "x" / "a.png").write_bytes(b"1234")
    (tmp_path / "omni-demo-link").symlink_to(kept)
    with locked_folder() as first:
        (first / "a.png").write_bytes(b"1234")
        assert not (tmp_path / "omni-demo-left").exists() and other.is_dir() and kept.is_dir()
        with locked_folder() as second:  # a server beside it
            assert first != second and (first / "a.png").is_file()
        assert not second.exists()
        assert (first / "a.png").is_file()
    assert sorted(os.listdir(tmp_path)) == ["kept", "omni-demo-link", "omni-other"]


def test_ports_that_are_taken_or_are_none_are_named() -> None:
    with closing(server._listening(None)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot be served at port {number}: "):
            server._listening(number)
    with pytest.raises(InputError, match="--port is 70000: it must be from 1 to 65535"):
        server._listening(70000)
