"""Data of strangers: nothing is run, no name leads out of a folder, no short file fills memory."""

import contextlib
import copyreg
import functools
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from PIL import Image

import omnitraining
from omnitraining import datasets
from omnitraining.cli import main
from omnitraining.config.run_config import load_run
from omnitraining.config.values import read_yaml
from omnitraining.datasets.array_pickle import read_pickle
from omnitraining.datasets.decoding import decode
from omnitraining.errors import InputError
from omnitraining.runs.run import Run


def op(name: str) -> bytes:
    code: bytes = getattr(pickle, name)
    return code


def call(module: str, name: str, *arguments: str) -> bytes:
    """A pickle, in protocol 0, that calls a function with texts."""
    return (
        f"c{module}\n{name}\n(".encode() + b"".join(f"V{a}\n".encode() for a in arguments) + b"tR."
    )


class Gadget:
    """Pickles as a call."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


TRAP = "import pathlib; pathlib.Path('TRAP').touch()"
STORAGE = torch.zeros(2)
GADGETS: dict[str, Any] = {
    "os.system": Gadget(os.system, ("touch TRAP",)),
    "subprocess.Popen": Gadget(subprocess.Popen, (["touch", "TRAP"],)),
    "eval": Gadget(eval, (f"exec({TRAP!r})",)),
    "exec": Gadget(exec, (TRAP,)),
    "partial": Gadget(functools.partial(os.system, "touch TRAP"), ()),
    "getattr chain": Gadget(getattr, (Gadget(__import__, ("os",)), "system")),
    "import": Gadget(__import__, ("antigravity",)),
    "map": Gadget(map, (os.system, ["touch TRAP"])),
    "pickle in a pickle": Gadget(pickle.loads, (pickle.dumps(Gadget(os.system, ("touch TRAP",))),)),
    "array of objects": np.array([Gadget(os.system, ("touch TRAP",))], object),
    "structured array": np.zeros(2, [("a", "O")]),
    "torch storage": STORAGE.untyped_storage(),
    "torch tensor": STORAGE,
    "torch rebuild": Gadget(*STORAGE.__reduce_ex__(2)[:2]),
    "numpy load": Gadget(np.load, ("TRAP", None, True)),
    "numpy memmap": Gadget(np.memmap, ("TRAP", "uint8", "w+", 0, (4,))),
    "numpy fromfile": Gadget(np.fromfile, ("/etc/passwd",)),
    "ctypes": Gadget(getattr, (np.zeros(1), "ctypes")),
    "code": Gadget(compile, (TRAP, "x", "exec")),
    "copyreg": Gadget(copyreg._reconstructor, (Path, object, None)),  # type: ignore[attr-defined]
    "path": Path("TRAP"),
    "exception": ValueError("x"),
    "type": type,
    "lambda of numpy": np.frompyfunc,
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", GADGETS)
def test_known_gadgets_are_refused_by_name(
    name: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pkl"
    try:
        file.write_bytes(pickle.dumps({"data": GADGETS[name], "labels": []}, protocol))
    except TypeError:
        pytest.skip("this protocol cannot write it")
    with pytest.raises(
        InputError, match=r"x.pkl (names \S+, which could|holds arrays of|is not a)"
    ):
        read_pickle(file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


BY_HAND = {
    "attribute of what is allowed": call("builtins", "dict.__subclasses__"),
    "module with dots": call("numpy.core.multiarray", "os.system", "touch TRAP"),
    "old name": call("__builtin__", "eval", TRAP),
    "posix": call("posix", "system", "touch TRAP"),
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\ntouch TRAP\x85R.",
    "old-style instance": b"(Vtouch TRAP\nios\nsystem\n.",
    "object code": b"(cos\nsystem\nVtouch TRAP\no.",
    "new object": b"\x80\x02c__builtin__\ndict\n)\x81.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent id": b"P1\n.",
    "binary persistent id": b"N" + op("BINPERSID") + b".",
    "buffer": b"\x80\x05" + op("NEXT_BUFFER") + b".",
    "defaults of a function": b"c_codecs\nencode\n(N(V__defaults__\nVrot13\ndtb.",
    "state of an ordered dict": b"ccollections\nOrderedDict\n)R(Vkeys\nc__builtin__\nlist\ndb.",
    "state of a class": b"cnumpy\ndtype\n(N(Vreal\nNdtb.",
}


@pytest.mark.parametrize("name", BY_HAND)
def test_pickles_made_by_hand_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pkl"
    file.write_bytes(BY_HAND[name])
    with pytest.raises(InputError, match=r"x\.pkl "):
        read_pickle(file)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


def doubled(times: int, build: bytes) -> bytes:
    """A container that holds the one before twice, which holds the one before twice, and so on."""
    places = [struct.pack("<I", place) for place in range(times)]
    steps = (b"r" + place + b"0(j" + place + b"j" + place + build for place in places)
    return b"\x80\x04]" + b"".join(steps) + b"."


GIGABYTES = 64 << 30
BOMBS = {
    "memo": b"\x80\x04N" + op("LONG_BINPUT") + b"\xff\xff\xff\xff(j\xff\xff\xff\xff\x05t.",
    "bytes": b"\x80\x04" + op("BINBYTES8") + struct.pack("<Q", GIGABYTES) + b".",
    "text": b"\x80\x04" + op("BINUNICODE8") + struct.pack("<Q", GIGABYTES) + b".",
    "bytearray": b"\x80\x05" + op("BYTEARRAY8") + struct.pack("<Q", GIGABYTES) + b".",
    "frame": b"\x80\x04" + op("FRAME") + struct.pack("<Q", GIGABYTES) + b".",
    "bytes of a number": b"c__builtin__\nbytes\n(I68719476736\ntR.",
    "bytearray of a number": b"c__builtin__\nbytearray\n(I68719476736\ntR.",
    "list of lists": doubled(40, b"l"),
    "tuple of tuples": doubled(40, b"t"),
    "duplicates": b"\x80\x04]2" + b"a2" * 40 + b".",
    "deep tuples": b"}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    b"(I1\n(I68719476736\ntcnumpy\ndtype\n(Vu1\ntRI00\nVx\ntb.",
    "long texts": b"cnumpy\ndtype\n(VU99999999999\ntR.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_short_pickles_do_not_fill_memory(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mini-imagenet-cache-train.pkl"
    file.write_bytes(BOMBS[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError, match=r"train\.pkl "):
        datasets.read(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("labels", [[[0, 0]] * 2, "ab", ["a", "b"], {0: 1, 1: 1}, [None, 1]])
def test_labels_of_pickles_are_numbers(labels: object, tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps({"data": np.zeros((2, 2, 2, 3), np.uint8), "labels": labels}))
    if isinstance(labels, dict):
        labels = [*labels]
    with pytest.raises(InputError, match=r"x\.pkl "):
        datasets.read(file)


# Names


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20)).save(path)
    return path


@pytest.mark.parametrize("name", ["../secret.png", "{outside}", "a/../../secret.png"])
def test_lists_name_no_image_outside_their_folder(name: str, tmp_path: Path) -> None:
    outside = picture(tmp_path / "secret.png")
    data = tmp_path / "data"
    picture(data / "a" / "in.png")
    name = name.format(outside=outside)
    (data / "all.csv").write_text(f"filename,label\n{name},x\na/in.png,y\n")
    with pytest.raises(InputError, match=r"secret\.png, which is not in .*data"):
        datasets.read(data)
    (data / "all.csv").write_text(f"filename,label\na/in.png,y\n{name},x\n")
    with pytest.raises(InputError, match=r"secret\.png, which is not in .*data"):
        datasets.read(data)
    (data / "all.csv").unlink()
    for images in ([name, "a/in.png"], ["a/in.png", name]):
        lists = {"label_names": ["x", "y"], "image_names": images, "image_labels": [0, 1]}
        (data / "all.json").write_text(json.dumps(lists))
        with pytest.raises(InputError, match=r"secret\.png, which is not in|there is no file"):
            datasets.read(data)


def test_a_class_is_no_way_out_either(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    data = tmp_path / "data"
    picture(data / "in.png")
    (data / "all.csv").write_text("filename,label\nsecret.png,..\nin.png,y\n")
    with pytest.raises(InputError, match=r"secret\.png, which is not in"):
        datasets.read(data)


def test_matlab_lists_name_no_image_outside(tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    data = tmp_path / "data"
    (data / "cars_train").mkdir(parents=True)
    rows = np.array(
        [("../../secret.png", 1), ("../../secret.png", 2)], [("fname", "O"), ("class", "O")]
    )
    scipy.io.savemat(data / "cars_train_annos.mat", {"annotations": rows})
    with pytest.raises(InputError, match=r"secret\.png, which is not in"):
        datasets.read(data)


def test_full_paths_into_the_folder_and_links_in_it_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "store" / "0.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "images").symlink_to(tmp_path / "store")
    (data / "all.csv").write_text(f"filename,label\n{data / 'images' / '0.png'},x\n")
    assert datasets.read(data).splits["all"].items == [data / "images" / "0.png"]


# Images and texts


def bomb_png(path: Path, side: int) -> Path:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("side", [9_460, 30_000, 2_000_000_000])
def test_image_bombs_are_refused_before_they_are_decoded(side: int, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"more than 89,478,485 pixels|cannot be decoded"):
        decode(bomb_png(tmp_path / "bomb.png", side), 84)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_pipe_among_images_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"0\.png is a pipe"):
        decode(tmp_path / "0.png", 84)


ALIASES = "a0: &a0 [1, 1]\n" + "".join(
    f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(12)
)


MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i + 1}: &a{i + 1} {{<<: [{', '.join([f'*a{i}'] * 10)}]}}\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ALIASES, r"line 1: anchors \(&\) are not read"),
        (MERGES, r"line 1: anchors \(&\) are not read"),
        ("a: *b", r"aliases \(\*\) are not read"),
        ("a: {<<: {b: 1}}", r"merge keys \(<<\) are not read"),
        ("a: !!int 3", r"tags \(!\) are not read"),
        ("a: ! 3", r"tags \(!\) are not read"),
        ("!!python/object/apply:os.system ['touch TRAP']", r"tags \(!\) are not read"),
        ("[" * 100_000, "is not YAML"),
        ("{a: " * 1_000, "is not YAML"),
        ("- 1\n" * 200, "must hold fields and values"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("a: 1\na: 2", "line 2: 'a' is there twice"),
        ('a: 1\n"\\x61": 2', "line 2: 'a' is there twice"),
        ("? [a]\n: 1", "line 1: a key must be a text"),
        ("a: [" + "1, " * 12_000 + "1]", "more than 10,000 values"),
        ("a: " + "x" * 5_000, "a text of more than 4,096 characters"),
        ("a: " + "[1]\n" * 100_000, "more than 262,144 bytes"),
        ("a: " + "9" * 4_400, "a text of more than"),
        (b"a: \xff\xfe", "is not YAML: 'utf-8' codec"),
        ("a: 1\n".encode("utf-16"), "is not YAML"),
        ("", "must hold fields and values"),
        ("seed: .nan", "holds nan, which is not a finite number"),
        ("problem: Sinusoids\nbackbone: MLP\nseed: 2020-99-99", "seed is '2020-99-99': it must be"),
    ],
)
def test_configurations_of_strangers_are_bounded(
    text: str | bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.monotonic()
    with pytest.raises(InputError, match=words) as caught:
        load_run(Run(tmp_path))
    assert time.monotonic() - start < 5 and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [ALIASES, MERGES, "a: &a [*a]", "a: &a {b: *a}"])
def test_ones_own_configuration_is_bounded_too(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"stands for more than 100,000 values|holds itself"):
        read_yaml(tmp_path / "config.yaml")
    assert time.monotonic() - start < 5


def test_ones_own_configuration_may_have_anchors(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {b: 1}\nc: {<<: *a, d: *a}")
    assert read_yaml(path) == {"a": {"b": 1}, "c": {"b": 1, "d": {"b": 1}}}


@pytest.mark.parametrize("where", ["config.yaml", "calibration.json", "best.safetensors"])
def test_pipes_and_devices_in_a_run_are_not_waited_for(where: str, tmp_path: Path) -> None:
    copied = shutil.copytree(Path(__file__).parent / "fixtures/v0.1.0/glyphs", tmp_path / "run")
    for made in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        (copied / where).unlink(missing_ok=True)
        made(copied / where)
        with (
            contextlib.nullcontext()
            if where[0] == "c" and where[1] == "a"
            else pytest.raises(InputError)
        ):
            omnitraining.load(copied)


def test_links_in_a_run_lead_no_writing_out_of_it(tmp_path: Path) -> None:
    """What loading or evaluating a run measures is kept in its folder, and nowhere else."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    run = Run(tmp_path / "run", create=True)
    for name in ("calibration.json", "calibration.json.part"):
        (run.path / name).symlink_to(tmp_path / "mine")
    (run.path / "evaluations").symlink_to(tmp_path / "folder")
    run.write_json("calibration.json", {"a": 1})
    with pytest.raises(InputError, match="is a link out of the run"):
        run.write_text("evaluations/test.json", "theirs")
    assert (tmp_path / "mine").read_text() == "mine" and not [*(tmp_path / "folder").iterdir()]
    assert json.loads((run.path / "calibration.json").read_text()) == {"a": 1}
    assert not (run.path / "calibration.json").is_symlink()


def test_deep_json_is_refused(tmp_path: Path) -> None:
    deep = "[" * 200_000
    (tmp_path / "base.json").write_text(deep)
    with pytest.raises(InputError, match=r"base\.json is not JSON"):
        datasets.read(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"seed": 1}))
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "evaluations" / "test.json").write_text(deep)
    with pytest.raises(InputError, match="is damaged"):
        Run(tmp_path).load_evaluation()


def test_names_cannot_write_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "a\n\x1b[31mred")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "\x1b" not in printed


def test_python_does_not_cache_what_was_refused() -> None:
    assert "antigravity" not in sys.modules
