#!/usr/bin/env python3
"""Checks the layer table: what each folder of src may include, and that CMake links exactly that."""
import os
import re
import sys

# Folder -> folders it may include directly; what those may include is allowed too.
TABLE = {
    "base": [],
    "model": ["base"],
    "async": ["base"],
    "sys": ["base", "async"],
    "net": ["async"],
    "connect": ["net", "proto"],
    "store": ["model", "async"],
    "blob": ["net"],
    "image": ["sys"],
    "vmm": ["model", "sys", "net"],
    "snapshot": ["sys", "blob"],
    "host": ["sys"],
    "sandbox": ["model", "vmm", "host", "snapshot", "image", "connect"],
    "agent": ["sandbox"],
    "control": ["model", "store", "connect"],
    "envd": ["model", "sys", "connect"],
    "cli": ["connect", "sys", "model"],
}
# Generated from proto/ and included by these first path parts.
PROTO = {"process", "filesystem", "hostagent", "wrenn"}
# Third-party headers that one folder alone may see.
OWNED = {
    "boost/beast": "net",
    "openssl/ssl": "net",
    "soci/": "store",
    "nftables/": "host",
    "netlink/": "host",
    "sodium": "net",
    "CLI/": "cli",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')


def closure(folder):
    seen, todo = set(), list(TABLE.get(folder, []))
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += TABLE.get(name, [])
    return seen


def check_file(path, folder, problems):
    allowed = closure(folder) | {folder} if folder != "apps" else set(TABLE) | {"proto", "apps"}
    with open(path, encoding="utf-8") as text:
        for number, line in enumerate(text, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            name = match.group(2)
            for prefix, owner in OWNED.items():
                if name.startswith(prefix) and folder not in (owner, "apps"):
                    problems.append(f"{path}:{number}: <{name}> belongs to src/{owner} alone")
            if match.group(1) == "<" and not os.path.exists(os.path.join("src", name)):
                continue
            first = name.split("/")[0]
            target = "proto" if first in PROTO and name.endswith(".pb.h") else first
            if target in TABLE or target == "proto":
                if target not in allowed:
                    problems.append(f"{path}:{number}: src/{folder} may not include {name} "
                                    f"(allowed: {', '.join(sorted(allowed))})")
            elif match.group(1) == '"' and not os.path.exists(os.path.join("src", name)):
                problems.append(f'{path}:{number}: "{name}" is not a path below src/')


def check_cmake(problems):
    with open("src/CMakeLists.txt", encoding="utf-8") as text:
        content = text.read()
    linked = {}
    for match in re.finditer(r"wrenn_layer\((\w+)([^)]*)\)", content):
        words = match.group(2).split()
        depends = []
        if "DEPENDS" in words:
            for word in words[words.index("DEPENDS") + 1:]:
                if word.isupper():
                    break
                depends.append(word)
        linked[match.group(1)] = depends
    for folder, depends in TABLE.items():
        if sorted(linked.get(folder, [])) != sorted(depends):
            problems.append(f"src/CMakeLists.txt: layer {folder} links {linked.get(folder, [])}, the table says {depends}")
    for folder in sorted(set(linked) - set(TABLE)):
        problems.append(f"src/CMakeLists.txt: layer {folder} is not in the table of scripts/check-layers.py")


def main():
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    problems = []
    count = 0
    for folder in sorted(os.listdir("src")):
        if not os.path.isdir(os.path.join("src", folder)):
            continue
        if folder not in TABLE and folder != "apps":
            if any(files for _, _, files in os.walk(os.path.join("src", folder))):
                problems.append(f"src/{folder}: not in the layer table")
            continue
        for root, _, files in os.walk(os.path.join("src", folder)):
            for name in sorted(files):
                if name.endswith((".h", ".cc")):
                    check_file(os.path.join(root, name), folder, problems)
                    count += 1
    check_cmake(problems)
    print("\n".join(problems + [f"layers: {count} files, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
