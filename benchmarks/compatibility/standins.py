"""Empty libraries in place of CUDA's, so that a CUDA build of torch runs on the CPU without them.

The build for Linux on the public index needs gigabytes of them to be imported at all, and calls
none of their functions where there is no GPU. Each function here returns 100: no device.
"""

import re
import subprocess
import tempfile
from pathlib import Path


def stand_in(folder: Path) -> list[str]:
    """Put the libraries that torch's own need, and that are not there, into their folder.

    Args:
        folder: ``torch/lib`` of an installed torch.

    Returns:
        Their names; none for a build without CUDA.
    """
    own = [path for path in folder.glob("*.so*") if re.match(r"lib(c10|torch|caffe2)", path.name)]
    needed, undefined = set[str](), set[str]()
    for path in own:
        needed |= {
            *re.findall(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]", _told("readelf", "-d", path))
        }
        names = _told("nm", "-D", "--undefined-only", path)
        undefined |= {*re.findall(r" [Uw] (\S+)$", names, re.MULTILINE)}
    needed -= {path.name for path in folder.iterdir()}
    # Some names say of which library they are, after an @; the others are found in any.
    bare = sorted(name for name in undefined if re.fullmatch(r"(cu|nccl|nv)[a-z]*[A-Z]\w*", name))
    for library in sorted(needed):
        versioned = sorted(
            name.partition("@")[0] for name in undefined if name.endswith(f"@{library}")
        )
        more = bare if library.startswith("libcudart") else []
        _compile(folder / library, versioned, more)
    return sorted(needed)


def _compile(path: Path, versioned: list[str], bare: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        source, script = Path(place) / "empty.c", Path(place) / "versions"
        source.write_text("".join(f"int {n}(void) {{ return 100; }}\n" for n in versioned + bare))
        words = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", "-o", path, source]
        words.append(f"-Wl,-soname,{path.name}")
        if versioned:
            script.write_text(f"{path.name} {{ global: {'; '.join(versioned)}; }};\n")
            words.append(f"-Wl,--version-script={script}")
        subprocess.run([str(word) for word in words], check=True)


def _told(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout
