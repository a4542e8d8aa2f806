#!/usr/bin/env python3
"""tests/pure.py OBJECTS: proves from symbol tables that the core is pure (I8). OBJECTS is the object directory of a build.

Deciding does no I/O, reads no clock and no random source, and allocates only through what it was given (the arena), through base
(which ends the process when memory is out) and jansson's values. Two proofs:

  1. what the core's own objects call is the project's or on the list of what computes on its arguments;
  2. whatever part of base and contract the core can reach, by any chain of calls, calls nothing that touches the world.
"""

import re
import subprocess
import sys
from pathlib import Path

COMPUTES = re.compile(
    r"mem(cpy|move|set|cmp|chr|rchr|mem)|str(len|nlen|cmp|ncmp|casecmp|ncasecmp|chr|rchr|chrnul|str|spn|cspn|pbrk)|v?snprintf"
    r"|qsort|bsearch|l?labs|abs|(__isoc23_)?strto(l|ll|ul|ull|d)|__ctype_(b|tolower|toupper)_loc|tolower|toupper|isfinite"
    r"|floor|ceil|trunc|l?l?round|fmod|pow|__errno_location|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_"
    r"|json_(object|array|string|stringn|integer|real|null|true|false|equal|copy|deep_copy|delete|vunpack_ex)"
    r"|json_(object|array|string|integer|real|number|iter)_[a-z_]+")
TOUCHES_THE_WORLD = re.compile(
    r"(f|fd)?open(at)?(64)?|creat|p?readv?(64)?|p?writev?(64)?|close|l?f?stat(at|x)?(64)?|unlink(at)?|rename|mkdir|opendir|readdir(64)?"
    r"|fread|fgets?|getc|getline|scanf|fscanf|printf|puts|putchar"
    r"|socket|connect|accept4?|bind|listen|send(to|msg)?|recv(from|msg)?|getaddrinfo|poll|ppoll|select|epoll_\w+|eventfd|timerfd_\w+"
    r"|time|clock|clock_gettime|gettimeofday|(u|nano|clock_nano)?sleep|gmtime\w*|localtime\w*"
    r"|getrandom|getentropy|random|rand(_r)?|[dlm]rand48|RAND_\w+|json_object_seed"
    r"|(secure_)?getenv|setenv|gethostname|getpid|pthread_\w+|fork|exec\w+|posix_spawn\w*|system|popen|signal|sigaction|kill|raise"
    r"|json_(load_file|loadf|loadfd|load_callback|dump_file|dumpf|dumpfd|dump_callback)|rd_kafka_\w+|redis\w+|curl_\w+")

# Where the second proof does not look further, and why.
GUARDS = {
    "expr_watch_": "the watchdog of jq, which has no time limit: it can end the process, never change what an expression gives",
}


def parse(objects):
    """What each section refers to. Built with -ffunction-sections, a section is one function or one table.

    Returns home: global symbol -> section, and calls: section -> names; a section is (object, name)."""
    home, calls, local = {}, {}, {}
    for path in objects:
        section = None
        for line in subprocess.run(["objdump", "-w", "-t", "-r", path], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines():
            if match := re.match(r"RELOCATION RECORDS FOR \[(.*)\]", line):
                section = (path, match.group(1))
            elif match := re.match(r"[0-9a-f]{16} (.).{6} (\S+)\t[0-9a-f]+ +(?:\.hidden )?(\S+)$", line):
                scope, where, name = match.groups()
                if where not in ("*UND*", "*ABS*", "*COM*"):
                    (local if scope == "l" else home)[(path, name) if scope == "l" else name] = (path, where)
            elif section and not section[1].startswith((".debug", ".eh_frame")) and (match := re.match(r"[0-9a-f]{16} R_\S+ +(\S+)", line)):
                name = re.sub(r"[+-]0x[0-9a-f]+$", "", match.group(1))
                calls.setdefault(section, set()).add(local.get((path, name), (path, name) if name.startswith(".") else name))
    return home, calls


def place(path, root, symbol):
    source = str(path.relative_to(root).with_suffix(".c"))
    word = re.compile(rf"\b{re.escape(symbol)}\b")
    lines = Path(source).read_text().splitlines()
    return f"{source}:{next((number for number, line in enumerate(lines, 1) if word.search(line)), 1)}"


def main(root):
    home, calls = parse(sorted(path for part in ("base", "contract", "core") for path in (root / "worker" / part).glob("*.o")))
    found, seen = [], {}
    todo = [(section, section[1].split(".")[-1]) for section in sorted(calls) if section[0].parent.name == "core"]
    while todo:
        (path, section), chain = todo.pop(0)
        if (path, section) in seen:
            continue
        seen[path, section] = chain
        for name in sorted(calls.get((path, section), ()), key=str):
            if isinstance(name, tuple) or name in home:
                target = home.get(name, name)
                if target[1].split(".")[-1].startswith(tuple(GUARDS)):
                    continue
                todo.append((target, f"{chain} > {target[1].split('.')[-1]}"))
            elif path.parent.name == "core" and not COMPUTES.fullmatch(name):
                found.append(f"{place(path, root, name)}: calls {name}: the core computes, the ports do (I8)")
            elif TOUCHES_THE_WORLD.fullmatch(name):
                found.append(f"{place(path, root, name)}: {name} is within reach of the core: {chain} (I8)")
    print("\n".join(sorted(set(found))))
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
