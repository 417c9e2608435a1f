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
    needed, bare = set[str](), set[str]()
    versioned: dict[str, dict[str, set[str]]] = {}  # by library and by version of its names
    for path in own:
        dependencies = _output_of("readelf", "--wide", "--dynamic", "--version-info", path)
        needed |= {*re.findall(r"NEEDED.*\[(lib(?:cu|nv|nccl)[^\]]*)\]", dependencies)}
        file, versions = "", dict[str, str]()
        for kind, name in re.findall(r"(File|Name): (\S+) ", dependencies):
            file = name if kind == "File" else file
            versions[name] = file
        names = _output_of("nm", "-D", "--undefined-only", path)
        for name in re.findall(r" [Uw] (\S+)$", names, re.MULTILINE):
            name, _, version = name.partition("@")
            if version in versions:
                of_library = versioned.setdefault(versions[version], {})
                of_library.setdefault(version, set()).add(name)
            elif re.fullmatch(r"(cu|nccl|nv)[a-z]*[A-Z]\w*", name):
                bare.add(name)
    needed -= {path.name for path in folder.iterdir()}
    for library in sorted(needed):
        # Names without a version may be found in any library.
        more = bare if library.startswith("libcudart") else set[str]()
        _compile(folder / library, versioned.get(library, {}), more)
    return sorted(needed)


def _compile(path: Path, versioned: dict[str, set[str]], bare: set[str]) -> None:
    names = sorted(bare.union(*versioned.values()))
    nodes = [f"{of} {{ global: {'; '.join(sorted(versioned[of]))}; }};" for of in sorted(versioned)]
    with tempfile.TemporaryDirectory() as place:
        source, script = Path(place) / "empty.c", Path(place) / "versions"
        source.write_text("".join(f"int {name}(void) {{ return 100; }}\n" for name in names))
        words = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", "-o", path, source]
        words.append(f"-Wl,-soname,{path.name}")
        if nodes:
            script.write_text("\n".join(nodes))
            words.append(f"-Wl,--version-script={script}")
        subprocess.run([str(word) for word in words], check=True)


def _output_of(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=True)
    return done.stdout
