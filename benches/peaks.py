"""Peak memory of every process of a command, and what it reads and writes.

    python3 benches/peaks.py -- concord train job.yaml
    python3 benches/peaks.py --ask 128 -- concord serve --model m.gguf --listen 127.0.0.1:8123

Reads /proc every 50 ms (Linux). Sizes are MiB. VmHWM is the most that was resident. RssAnon is
memory of the process alone; RssFile is pages of mapped files, which processes share and the system
may take back. Pss counts a page that n processes share as 1/n in each: its sum over all processes
is what the machine had to hold.

--ask N waits for the server at --listen, streams a completion of 8 tokens after a prompt of about
N tokens, prints the time to its first token, and stops the server.
"""

import argparse
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request

FIELDS = ("VmHWM", "RssAnon", "RssFile")


def children_of():
    """Parent pid -> pids, of all processes."""
    tree = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = open(f"/proc/{pid}/stat").read()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        tree.setdefault(parent, []).append(int(pid))
    return tree


def family(root):
    """`root` and all that descend from it."""
    tree, found, todo = children_of(), [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(tree.get(pid, []))
    return found


def numbers(path):
    """The lines `name: number ...` of a file of /proc."""
    rows = {}
    for line in open(path):
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            rows[name] = int(words[0])
    return rows


class Watch:
    """Looks at a command's processes until it is told to stop."""

    def __init__(self, root):
        self.root, self.seen, self.io, self.pss, self.over = root, {}, {}, 0, False

    def look(self):
        """Reads /proc once."""
        total = 0
        for pid in family(self.root):
            try:
                status = numbers(f"/proc/{pid}/status")
                words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
                total += numbers(f"/proc/{pid}/smaps_rollup").get("Pss", 0)
                self.io[pid] = numbers(f"/proc/{pid}/io")
            except OSError:
                continue
            name = " ".join(word.decode() for word in words[:3])
            peaks = self.seen.setdefault(pid, {"name": name})
            for field in FIELDS:
                peaks[field] = max(peaks.get(field, 0), status.get(field, 0))
        self.pss = max(self.pss, total)

    def run(self):
        """Looks every 50 ms."""
        while not self.over:
            self.look()
            time.sleep(0.05)


def first_token(address, words):
    """Seconds until `address` answers, and from a request to the first token of its answer."""
    base, began = f"http://{address}/v1", time.time()
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/health", timeout=5)
            break
        except OSError:
            time.sleep(0.2)
    ready = time.time() - began
    model = json.load(urllib.request.urlopen(f"{base}/models"))["data"][0]["id"]
    body = {"model": model, "prompt": "a " * words, "max_tokens": 8, "stream": True}
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/completions", json.dumps(body).encode(), head)
    asked, first = time.time(), None
    with urllib.request.urlopen(request, timeout=3600) as answer:
        for line in answer:
            if line.startswith(b"data: {") and first is None:
                first = time.time() - asked
    return {"ready_s": ready, "first_token_s": first, "answer_s": time.time() - asked}


def main():
    """Runs the command and prints what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ask", type=int, help="tokens of the prompt to ask a server with")
    parser.add_argument("--listen", default="127.0.0.1:8000")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    began = time.time()
    child = subprocess.Popen(args.command)
    watch = Watch(child.pid)
    thread = threading.Thread(target=watch.run)
    thread.start()
    result = {"command": " ".join(args.command)}
    if args.ask:
        result |= first_token(args.listen, args.ask)
        child.send_signal(signal.SIGINT)
    result["exit"] = child.wait()
    watch.over = True
    thread.join()
    result["seconds"] = time.time() - began
    result["load"] = os.getloadavg()[0]
    result["pss_mib"] = watch.pss >> 10
    result["processes"] = [
        {"name": peaks["name"]} | {field: peaks[field] >> 10 for field in FIELDS}
        for peaks in watch.seen.values()
    ]
    for field in ("read_bytes", "write_bytes", "wchar"):
        result[f"{field}_mib"] = sum(io.get(field, 0) for io in watch.io.values()) >> 20
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
