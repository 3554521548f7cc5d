"""Makes the registry's CUDA build of torch importable on a machine without the NVIDIA wheels.

Usage: slim_torch.py TORCH_LIB_DIR        (after `pip install --no-deps torch`; needs gcc, readelf, nm)

The CPU build of torch is not on the ordinary registry, and the CUDA build links a dozen NVIDIA
libraries (4 GB) that the CPU path never calls. For every needed library that nobody provides, this
writes an empty one with that name, its version nodes and the symbols torch asks of it: the loader is
satisfied, and a call into one of them would trap. Python opens extension modules with RTLD_NOW, so
every undefined symbol must exist, version nodes included.
"""

import collections
import glob
import os
import re
import subprocess
import sys
import tempfile


def out(*cmd):
    return subprocess.run(cmd, capture_output=True, text=True, check=True).stdout


def scan(libs):
    """What the libraries need: names, versioned symbols per (file, version), unversioned symbols."""
    needed, versioned, loose = set(), collections.defaultdict(set), set()
    for lib in libs:
        needed |= set(re.findall(r"NEEDED.*\[((?:libcu|libnv|libnccl)[^\]]*)\]", out("readelf", "-dW", lib)))
        file_of, current = {}, None
        for line in out("readelf", "-VW", lib).splitlines():
            if m := re.search(r"File: (\S+)", line):
                current = m[1]
            elif (m := re.search(r"Name: (\S+)", line)) and current:
                file_of[m[1]] = current
        for line in out("nm", "-D", "--undefined-only", lib).splitlines():
            symbol, _, version = line.split()[-1].partition("@")
            if version in file_of:
                versioned[file_of[version], version].add(symbol)
            elif not version and re.match(r"(cu[A-Za-z]|nv|nccl)", symbol):
                loose.add(symbol)
    return needed, versioned, loose


def write_stub(directory, name, nodes, loose):
    symbols = sorted(set().union(loose, *nodes.values()))
    with tempfile.TemporaryDirectory() as tmp:
        with open(f"{tmp}/stub.c", "w") as f:
            f.write("".join(f"void *{s};\n" for s in symbols))
        cmd = ["gcc", "-shared", "-fPIC", "-w", f"{tmp}/stub.c", "-o", f"{directory}/{name}", f"-Wl,-soname,{name}"]
        if nodes:
            with open(f"{tmp}/stub.map", "w") as f:
                f.write("".join(f"{v} {{ global: {'; '.join(sorted(s))}; }};\n" for v, s in nodes.items()))
            cmd.append(f"-Wl,--version-script={tmp}/stub.map")
        subprocess.run(cmd, check=True)


def main():
    directory = sys.argv[1]
    site = os.path.dirname(os.path.dirname(directory))
    libs = [f for f in glob.glob(directory + "/*.so*") if not os.path.islink(f)]
    have = {os.path.basename(f) for f in libs}
    have |= {os.path.basename(f) for f in glob.glob(site + "/nvidia/**/*.so*", recursive=True)}
    needed, versioned, loose = scan(libs)
    for name in sorted(needed - have):
        nodes = {v: s for (f, v), s in versioned.items() if f == name}
        write_stub(directory, name, nodes, loose if name.startswith("libnccl") else set())


main()
