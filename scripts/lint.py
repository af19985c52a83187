#!/usr/bin/env python3
"""The house rules that no compiler checks: lengths, banned words, coroutines that could dangle.

usage: lint.py [FILE...]      all files under version control by default
"""
import os
import re
import subprocess
import sys

MAX_FILE_LINES = 600
# The API is one document, which its readers' tools want in one file.
LONGER_FILES = {"proto/openapi.yaml": 1500}
MAX_FUNCTION_LINES = 70
# System calls that may wait for a disk, a child process or a clock.
WAIT = re.compile(r"\bthis_thread::sleep_(?:for|until)\b|\bfilesystem::(?:remove_all|copy)\b|(?<!\w)::(?:fsync|fdatasync|sync|"
                  r"syncfs|msync|sync_file_range|copy_file_range|sendfile|posix_fallocate|waitpid|nanosleep|usleep|system)\b")
# What runs inside QEMU and before the guest's first program.
OUTSIDE_OF_LOOPS = re.compile(r"src/(?:vmm/qemu/preload|image/initramfs)/")
# Where no event loop runs, or not yet.
WITHOUT_LOOP = re.compile(r"_test\.(?:cc|h)$|^(?:fuzz|bench|tests|src/apps|src/cli)/")
CODE = (".h", ".cc", ".py", ".sh", ".sql", ".cmake", ".proto", ".yaml", ".txt")
BANNED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK|(?i:stu" r"b|moc" r"k|fak" r"e)s?)\b")
# A file is replaced by sys::write_file_atomic alone, which fsyncs in the right order. Snapshots move whole folders; in a
# guest, and for a user's download, a rename is what was asked for.
RENAME = re.compile(r"::rename(?:at2?)?\(|\brename_file\(")
RENAMES = re.compile(r"_test\.cc$|^src/(?:sys/file\.(?:h|cc)|snapshot/writer\.cc|cli/copy\.cc|envd/\w+\.cc)$|^(?:fuzz|bench|tests)/")
SCOPE = re.compile(r"\b(namespace|class|struct|union|enum)\b|extern\s+$")
COROUTINE = re.compile(r"\b(?:Task|asio::awaitable|boost::asio::awaitable)<")
VIEW = re.compile(r"&|\b(?:string_view|span|initializer_list)\b")
# A reader fills the caller's buffer; the caller waits for it by definition of the call. A pool outlives all.
ALLOWED_PARAMETERS = re.compile(r"^(?:std::span<(?:char|std::uint8_t|std::byte)>\s*\w*|asio::thread_pool&\s*\w*)$")


def blank(text):
    """The same text with comments and literals blanked, so that braces and words are code."""
    out = []
    index, size = 0, len(text)
    while index < size:
        two = text[index:index + 2]
        char = text[index]
        raw = re.match(r'R"([^()\\\s]{0,16})\(', text[index:index + 20]) if char == "R" else None
        if raw:
            end = text.find(")" + raw.group(1) + '"', index)
            end = size if end < 0 else end + len(raw.group(1)) + 2
        elif two == "//":
            end = text.find("\n", index)
            end = size if end < 0 else end
        elif two == "/*":
            end = text.find("*/", index)
            end = size if end < 0 else end + 2
        elif char == '"' or (char == "'" and not (index and (text[index - 1].isalnum()))):
            end = index + 1
            while end < size and text[end] != char and text[end] != "\n":
                end += 2 if text[end] == "\\" else 1
            end += 1
        else:
            out.append(char)
            index += 1
            continue
        out.append(re.sub(r"[^\n]", " ", text[index:end]))
        index = end
    return "".join(out)


def matching(text, start, opening, closing):
    depth = 0
    for index in range(start, len(text)):
        if text[index] == opening:
            depth += 1
        elif text[index] == closing:
            depth -= 1
            if depth == 0:
                return index
    return len(text) - 1


def line_of(text, index):
    return text.count("\n", 0, index) + 1


def functions(code):
    """The head of each function, and where its body begins and ends."""
    index, head = 0, 0
    stack = []
    while index < len(code):
        char = code[index]
        if char == "#" and code[code.rfind("\n", 0, index) + 1:index].strip() == "":
            while index < len(code) and code[index] != "\n":
                index += 2 if code[index] == "\\" else 1
            head = index
        elif char == ";":
            head = index + 1
        elif char == "{":
            text = code[head:index]
            if SCOPE.search(text) and "(" not in re.sub(r"alignas\([^)]*\)", "", text):
                stack.append(index)
            else:
                end = matching(code, index, "{", "}")
                yield text, index, end
                index = end
            head = index + 1
        elif char == "}":
            if stack:
                stack.pop()
            head = index + 1
        index += 1


def function_lengths(path, code, problems):
    for text, start, end in functions(code):
        lines = line_of(code, end) - line_of(code, start) + 1
        if lines > MAX_FUNCTION_LINES and "=" not in text.split("(")[0]:
            name = re.sub(r"\s+", " ", text).strip()[:60]
            problems.append(f"{path}:{line_of(code, start)}: {lines} lines in one function, "
                            f"at most {MAX_FUNCTION_LINES}: {name}")


def waits(path, code, problems):
    """A system call that may wait long stands in a function, or a lambda, that takes an async::Blocking."""
    for text, start, end in functions(code):
        for match in WAIT.finditer(code, start, end):
            if not re.search(r"\bBlocking\b", text + code[start:match.start()]):
                problems.append(f"{path}:{line_of(code, match.start())}: {match.group(0)} may wait long: "
                                "take an async::Blocking and call this from async::offload")


def split_parameters(text):
    parts, depth, current = [], 0, ""
    for char in text:
        if char in "<([{":
            depth += 1
        elif char in ">)]}":
            depth -= 1
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    return [re.sub(r"\s+", " ", part).strip() for part in parts + [current] if part.strip() or current.strip()]


def check_parameters(path, code, start, what, problems):
    """`start` is at the opening parenthesis of a coroutine's parameters."""
    end = matching(code, start, "(", ")")
    for parameter in split_parameters(code[start + 1:end]):
        parameter = parameter.split("=")[0].strip()
        bare = re.sub(r"std::function<.*>", "", parameter)
        if VIEW.search(bare) and not ALLOWED_PARAMETERS.match(parameter):
            problems.append(f"{path}:{line_of(code, start)}: coroutine {what} takes `{parameter}`: its caller's object "
                            "may be gone when it runs; take a value or an owner's pointer")
    return end


def coroutines(path, code, problems):
    for match in COROUTINE.finditer(code):
        end = matching(code, match.end() - 1, "<", ">") + 1
        named = re.match(r"\s+((?:\w+::)*\w+)\s*\(", code[end:end + 200])
        if named and named.group(1) not in ("return", "if", "while"):
            opening = end + named.end() - 1
            # `Task<> task(...)` inside a function body declares a variable when it is given values.
            check_parameters(path, code, opening, named.group(1), problems)
    for match in re.finditer(r"(?<![\w\])])\[([^\[\]]*)\]\s*\(", code):
        opening = match.end() - 1
        closing = matching(code, opening, "(", ")")
        after = re.match(r"\s*(?:mutable\s*|noexcept\s*)*(?:->\s*([^{;]*))?\{", code[closing + 1:closing + 300])
        if not after:
            continue
        start = closing + after.end()
        body = code[start:matching(code, start, "{", "}")]
        inner = re.sub(r"\[[^\[\]]*\]\s*\([^()]*\)\s*(?:mutable\s*)?->[^{;]*\{.*", "", body, flags=re.S)
        if not re.search(r"\bco_(?:await|return|yield)\b", inner):
            continue
        if match.group(1).strip() and not path.endswith("_test.cc"):
            problems.append(f"{path}:{line_of(code, match.start())}: coroutine lambda captures `{match.group(1).strip()[:40]}`: "
                            "captures die with the lambda; pass them as parameters")
        check_parameters(path, code, opening, "lambda", problems)


def check(path, problems):
    with open(path, encoding="utf-8") as source:
        text = source.read()
    lines = text.splitlines()
    limit = LONGER_FILES.get(path, MAX_FILE_LINES)
    if len(lines) > limit:
        problems.append(f"{path}: {len(lines)} lines, at most {limit}")
    for number, line in enumerate(lines, 1):
        word = BANNED.search(line)
        if word:
            problems.append(f"{path}:{number}: banned word `{word.group(0)}`: finish it or say what it is")
        if line != line.rstrip():
            problems.append(f"{path}:{number}: white space at the end of the line")
    if text and not text.endswith("\n"):
        problems.append(f"{path}: no newline at the end")
    if path.endswith((".h", ".cc")):
        if path.endswith(".h") and not path.startswith("cmake/") and "#pragma once" not in text:
            problems.append(f"{path}: no #pragma once")
        code = blank(text)
        function_lengths(path, code, problems)
        coroutines(path, code, problems)
        if path.startswith("src/") and not WITHOUT_LOOP.search(path) and not OUTSIDE_OF_LOOPS.match(path):
            waits(path, code, problems)
        for match in RENAME.finditer(code) if not RENAMES.search(path) else ():
            problems.append(f"{path}:{line_of(code, match.start())}: replace files by sys::write_file_atomic")
        if not WITHOUT_LOOP.search(path) and path != "src/async/blocking.h":
            for match in re.finditer(r"\bBlocking::without_loop\b|\bBlockingPass\b", code):
                if not path.startswith("src/async/"):
                    problems.append(f"{path}:{line_of(code, match.start())}: only offload() hands out a Blocking here")


def main():
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = sys.argv[1:]
    if not paths:
        listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], check=True, capture_output=True).stdout
        paths = [path for path in listed.decode().split("\0") if path and os.path.isfile(path)]
    paths = [path for path in paths if path.endswith(CODE) or os.path.basename(path) == "CMakeLists.txt"]
    problems = []
    for path in sorted(paths):
        check(path, problems)
    print("\n".join(problems + [f"lint: {len(paths)} files, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
