#!/usr/bin/env python3
"""tests/rules.py RULE...: the project's own rules that need no compiler. Each finding is `file:line: what is wrong, what to do`.

tests/lint runs it; the rules are the functions whose names begin with `rule_`.
"""

import re
import subprocess
import sys
from pathlib import Path

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
TOP_LEVEL = {"Makefile", "README.md", "LICENSE", "worker", "producer", "schemas", "config", "tests", "ops"}

# Who may include what (worker/DESIGN.md says why). A directory may always include itself; `*` is everything but the above.
ARROWS = {
    "worker/base": [],
    "worker/wire": ["worker/base"],
    "worker/contract": ["worker/base"],
    "worker/core": ["worker/base", "worker/contract"],
    "worker/io": ["worker/base"],
    "worker/call": ["worker/base", "worker/contract", "worker/core"],
    "worker": ["*"],
    "producer": ["*"],
    "tests": ["*"],
}
# The daemon is built on the library, never the other way round. Only main starts the loop, and tests that simulate it.
TOP_OF_THE_TREE = {"worker/loop.h": ("worker/main.c", "worker/loop", "tests/"), "worker/main.h": ()}

# Each outside library stays behind one door, so that a test can put something else there.
LIBRARIES = {
    "librdkafka/": ("worker/io/",),
    "hiredis": ("worker/io/",),
    "curl/": ("worker/io/",),
    "microhttpd": ("worker/io/",),
    "avro": ("worker/wire/",),
    "jq.h": ("worker/contract/",),
    "libconfig": ("worker/contract/", "worker/settings"),
}

BANNED = {
    "strcpy": "buf_put or memcpy with a checked size",
    "strcat": "buf_put",
    "strncpy": "memcpy with a checked size (strncpy may leave no NUL)",
    "strncat": "buf_put",
    "sprintf": "snprintf or buf_printf",
    "vsprintf": "vsnprintf",
    "gets": "getline",
    "strtok": "strcspn and strspn (strtok keeps hidden state)",
    "atoi": "strtol with a check of the end and of errno",
    "atol": "strtol with a check of the end and of errno",
    "atoll": "strtoll with a check of the end and of errno",
    "atof": "strtod with a check of the end and of errno",
    "sscanf": "strtol and friends (overflow in sscanf is undefined)",
    "system": "posix_spawn with an argument list",
    "popen": "posix_spawn with an argument list",
    "tmpnam": "mkstemp",
    "mktemp": "mkstemp",
    "rand": "getrandom, or a seed in the state",
    "srand": "getrandom, or a seed in the state",
    "random": "getrandom, or a seed in the state",
    "signal": "sigaction or signalfd",
    "alloca": "an arena",
    "localtime": "localtime_r",
    "gmtime": "gmtime_r",
    "ctime": "strftime",
    "asctime": "strftime",
    "strerror": "%m, or strerror_r (two threads)",
}
BANNED_IN_WORKER = {"sleep": "a timer of the loop", "usleep": "a timer of the loop", "nanosleep": "a timer of the loop"}

LEFTOVERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")
MACHINE_PATHS = re.compile(r"/(?:work|farm|root|Users)/|/home/[a-z]")

found = 0


def complain(path, line, message):
    global found
    found += 1
    print(f"{path}:{line}: {message}")


def files(*patterns):
    """What git knows or would add: a new file is checked before it is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        check=True, stdout=subprocess.PIPE).stdout
    return [path for path in sorted(set(listed.decode().split("\0"))) if path and Path(path).is_file()]


def texts():
    """Every file that is text; fuzz inputs are bytes even where they look like text."""
    for path in files():
        data = Path(path).read_bytes()
        if b"\0" not in data[:8192] and not path.startswith("tests/fuzz/corpus/"):
            yield path, data.decode(errors="replace")


def code(text):
    """C without comments, strings and characters; lines stay where they are."""
    token = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
    return token.sub(lambda found_token: re.sub(r"[^\n]", " ", found_token.group()), text)


def c_files():
    for path in files("*.c", "*.h"):
        yield path, Path(path).read_text(errors="replace")


def rule_top():
    present = {path.split("/")[0] for path in files()}
    for name in sorted(present - TOP_LEVEL):
        if not name.startswith("."):
            complain(name, 1, "does not belong at the top level, which is: " + " ".join(sorted(TOP_LEVEL)))
    for name in sorted(TOP_LEVEL - present):
        complain(name, 1, "missing at the top level")


def rule_files():
    for path, text in texts():
        is_source = path.endswith((".c", ".h", ".py", ".sh")) or text.startswith("#!")
        lines = text.count("\n")
        if is_source and lines > FILE_LINES_MAX:
            complain(path, FILE_LINES_MAX + 1, f"{lines} lines; a file has at most {FILE_LINES_MAX}: split it by what it does")


def rule_functions():
    """From the line of the name to the closing brace. clang-format puts both braces of a function in column 0."""
    for path, text in c_files():
        lines = code(text).split("\n")
        begin = None
        for number, line in enumerate(lines, 1):
            if line.startswith("{"):
                begin = number - 1
                while begin > 1 and lines[begin - 1].startswith((" ", "\t")):
                    begin -= 1
            elif line.startswith("}") and begin is not None:
                length = number - begin + 1
                if length > FUNCTION_LINES_MAX:
                    name = re.search(r"(\w+)\s*\(", lines[begin - 1])
                    complain(path, begin, f"{name.group(1) if name else 'function'} has {length} lines; at most "
                             f"{FUNCTION_LINES_MAX}: give a part of it a name")
                begin = None


def allowed_include(path, target):
    group = next(name for name in sorted(ARROWS, key=len, reverse=True) if path.startswith(name + "/"))
    if target in TOP_OF_THE_TREE:
        return path.startswith(TOP_OF_THE_TREE[target])
    return "*" in ARROWS[group] or any(str(Path(target).parent) == name for name in [group, *ARROWS[group]])


def rule_arrows():
    include = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
    for path, text in c_files():
        for number, line in enumerate(text.split("\n"), 1):
            match = include.match(line)
            if match is None:
                continue
            quote, target = match.groups()
            if quote == '"' and not Path(target).exists():
                complain(path, number, f'"{target}" is no path from the root; includes are, so that they list dependencies')
            elif quote == '"' and not allowed_include(path, target):
                complain(path, number, f"{Path(path).parent} must not include {target} (see ARROWS in tests/rules.py)")
            if path.startswith("tests/"):
                continue
            for library, homes in LIBRARIES.items():
                if quote == "<" and target.startswith(library) and not path.startswith(homes):
                    complain(path, number, f"<{target}> is used behind {' and '.join(homes)} only")


def rule_banned():
    for path, text in c_files():
        banned = {**BANNED, **BANNED_IN_WORKER} if path.startswith("worker/") else BANNED
        call = re.compile(r"(?<![\w.>])(" + "|".join(banned) + r")\s*\(")
        for number, line in enumerate(code(text).split("\n"), 1):
            for match in call.finditer(line):
                complain(path, number, f"{match.group(1)} is banned: use {banned[match.group(1)]}")


def rule_leftovers():
    for path, text in texts():
        for number, line in enumerate(text.split("\n"), 1):
            match = LEFTOVERS.search(line)
            if match:
                complain(path, number, f"{match.group(1)}: do it, or open an issue")


def rule_paths():
    for path, text in texts():
        for number, line in enumerate(text.split("\n"), 1):
            match = MACHINE_PATHS.search(line)
            if match:
                complain(path, number, f"{match.group()} is a path of one machine")


RULES = {name[len("rule_"):]: rule for name, rule in list(globals().items()) if name.startswith("rule_")}

if __name__ == "__main__":
    unknown = [name for name in sys.argv[1:] if name not in RULES]
    if unknown or len(sys.argv) == 1:
        sys.exit(f"usage: tests/rules.py RULE...; rules: {' '.join(RULES)}")
    for name in sys.argv[1:]:
        RULES[name]()
    sys.exit(1 if found else 0)
