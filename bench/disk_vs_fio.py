#!/usr/bin/env python3
"""Sequential disk throughput beside fio, in one run: same directory, block size and depth.

fio (io_uring, O_DIRECT) and disk_bench take turns, each with a fresh file that it preallocates,
writes once and reads once; the median of the rounds counts. Prints a Markdown table; ratios are ours
to fio's.

usage: disk_vs_fio.py <build directory>/bench/disk_bench <directory on the disk> [total MiB [block KiB [depth]]]
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 3


def fio(directory, mib, kib, depth, kind):
    done = subprocess.run(
        ["fio", "--name=fio", f"--directory={directory}", "--filename=fio.data", f"--rw={kind}",
         "--ioengine=io_uring", "--direct=1", f"--bs={kib}k", f"--iodepth={depth}", f"--size={mib}m",
         "--output-format=json"], check=True, capture_output=True, text=True)
    return json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0][kind]["bw_bytes"]


def ours(bench, directory, mib, kib, depth):
    done = subprocess.run([bench, os.path.join(directory, "ours.data"), str(mib), str(kib), str(depth)],
                          check=True, stdout=subprocess.PIPE, text=True)
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if shutil.which("fio") is None:
        sys.exit("fio is not installed: apt-get install fio")
    bench, where = sys.argv[1:3]
    mib, kib, depth = [int(a) for a in sys.argv[3:6]] + [1024, 1024, 16][len(sys.argv[3:6]):]
    rows = {}
    with tempfile.TemporaryDirectory(dir=where) as directory:
        for _ in range(ROUNDS):
            for kind in ("write", "read"):
                rows.setdefault("fio_" + kind, []).append(fio(directory, mib, kib, depth, kind))
            os.unlink(os.path.join(directory, "fio.data"))
            for name, value in ours(bench, directory, mib, kib, depth).items():
                rows.setdefault(name, []).append(value)
    print(f"{mib} MiB, blocks of {kib} KiB, depth {depth}; MB/s, rounds in order, then the median\n")
    print("| what | " + " | ".join(str(i + 1) for i in range(ROUNDS)) + " | median | ratio to fio |")
    print("|---|" + "---|" * (ROUNDS + 2))
    for name, values in rows.items():
        median = statistics.median(values)
        ratio = median / statistics.median(rows["fio_" + name.split("_")[1]])
        print(f"| {name} | " + " | ".join(f"{v / 1e6:.0f}" for v in values) +
              f" | {median / 1e6:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
