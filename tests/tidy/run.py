"""run.py CHECKER ROOT [--build DIR] [--cc CC]: tries the checker on planted faults, then runs it.

A checker is a module with check(tree) -> list of problems, a small CLEAN tree in which it must find
nothing, and PLANTS: trees in which it must find a problem that holds the given text.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile

from tree import Tree


def check_files(checker, files, compiler):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return checker.check(Tree(folder, compiler=compiler))


def self_test(checker, compiler):
    faults = [f"finds in a clean tree: {p}" for p in check_files(checker, checker.CLEAN, compiler)]
    for files, want in checker.PLANTS:
        found = check_files(checker, files, compiler)
        if not any(want in p for p in found):
            faults.append(f"misses {want!r} in {files!r}; found {found}")
    return faults


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checker")
    parser.add_argument("root")
    parser.add_argument("--build")
    parser.add_argument("--cc", default="cc")
    args = parser.parse_args()
    checker = importlib.import_module(args.checker)
    faults = self_test(checker, args.cc)
    if faults:
        print(f"the checker {args.checker} is broken:", *faults, sep="\n  ")
        return 2
    tree = Tree(args.root, args.build, args.cc)
    problems = checker.check(tree)
    print(*problems, sep="\n")
    print(f"{args.checker}: {len(tree.files)} files, {len(problems)} problems, "
          f"{len(checker.PLANTS)} planted faults caught")
    return 1 if problems or not tree.files else 0


if __name__ == "__main__":
    sys.exit(main())
