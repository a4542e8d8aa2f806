"""The first minute with Myelin: one workflow, two workers, two kills, one e-mail. Every figure is measured in this run; anything
but one e-mail that was sent once is exit 1."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
import uuid

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic

from doubles import BUILD, ROOT, Double, holds_connection
from harness import Space, wait_until
from history import History, rebuild

HERE = pathlib.Path(__file__).resolve().parent
DIRECTORY = ROOT / ".local" / "demo"
CONTRACT = ROOT / "config" / "contracts" / "customer_research_to_followup.cfg"
BOLD, DIM, RED, GREEN, PLAIN = ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if sys.stdout.isatty() else [""] * 5


def say(text="", end="\n"):
    print(text, end=end, flush=True)


def head(word, text):
    say(f"{BOLD}{word:<9}{PLAIN}{text}")


# ---- CONTROL: what ordinary code does ----


def control(brokers):
    """A consume-call-produce loop, killed while the mail server has its request: how often is the e-mail sent?"""
    name = f"control-{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.in", f"{name}.out"]
    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
        future.result(20)
    producer = confluent_kafka.Producer({"bootstrap.servers": brokers, "log_level": 3})
    producer.produce(topics[0], json.dumps({"to": "jane@acme.example", "subject": "Hello", "body": "..."}))
    producer.flush(10)
    hold = [{"times": 1, "match": {"tool": "send"}, "answer": {"act_and_not_answer": "hold"}}]
    with Double("tool_double", DIRECTORY / "control", script=hold) as tools:
        command = [BUILD / "tests" / "plain_loop", "--brokers", brokers, "--group", name, "--in", topics[0], "--out", topics[1],
                   "--url", tools.url + "/send"]
        for life in ("killed", "restarted"):
            with open(DIRECTORY / "control" / f"{life}.log", "w") as log:
                loop = subprocess.Popen(command, stdout=log, stderr=log)
            acted = 1 if life == "killed" else 2
            wait_until("the plain loop sends", lambda: len(tools.ledger("acted")) >= acted, 30)
            loop.kill()
            loop.wait()
        sent = len(tools.ledger("acted"))
    admin.delete_topics(topics)
    return sent


# ---- RUN: the story, told from `history` as it is committed ----


class Story:
    """Follows the facts of one run and tells them."""

    def __init__(self, space, run):
        self.run, self.space = run, space
        self.history = History(space)
        self.facts, self.started_ms = [], None

    def clock(self, at_ms=None):
        return ((at_ms or time.time() * 1000) - self.started_ms) / 1000

    def aside(self, text, colour=RED):
        say(f"{self.clock():6.1f}s {colour}>>> {text}{PLAIN}")

    def commit_ms(self, fact):
        """How long the worker's transaction took that made this fact visible, from the worker's own log."""
        for worker in self.space.workers:
            for at, us in re.findall(r"time=(\S+) .*event=committed .*us=(\d+)", worker.log() if worker.slot in (fact["worker"] or "") else ""):
                seconds = time.mktime(time.strptime(at[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(at[19:23])
                if seconds * 1000 >= fact["at_ms"]:
                    return f"{int(us) / 1000:.1f} ms"
        return ""

    def tell(self, fact):
        kind, body = fact["kind"], fact["body"]
        if self.started_ms is None:
            self.started_ms = fact["at_ms"]
        text = getattr(self, "on_" + kind, lambda *_: None)(fact, body)
        if text is None:
            return
        topic = (fact["source_topic"] or "").split(".", 1)[-1]
        place = f"{topic} {fact['source_partition']}@{fact['source_offset']}" if fact["source_offset"] >= 0 else "timer"
        lines = [part for line in text.split("\n") for part in textwrap.wrap(line, 64 + unseen(line)) or [""]]
        hidden = unseen(lines[0])
        say(f"{self.clock(fact['at_ms']):6.1f}s {fact['step'][:20]:<20} {lines[0]:<{64 + hidden}} {DIM}{place:<18}{self.commit_ms(fact):>8}{PLAIN}")
        for line in lines[1:]:
            say(f"{'':28} {line}")

    def on_ModelAnswered(self, fact, body):
        asks = ", ".join(f"{call['tool']}({', '.join(map(str, _values(call['arguments'])))})" for call in body["calls"])
        if asks:
            return f"model asks {asks}"
        return "reviewer answers" if body["judge"] else "model answers"

    def on_ToolAnswered(self, fact, body):
        result = json.loads(body["result"])
        pages = f": {len(result['pages'])} pages" if isinstance(result, dict) and "pages" in result else ""
        how = "" if body["origin"].lower() == "called" else f" ({body['origin'].lower()}, not called again)"
        return f"{body['tool']} done{pages}{how}"

    def on_CallRefused(self, fact, body):
        return f"{RED}REFUSED{PLAIN} before the call: {body['tool']}\n{body['rule']}"

    def on_CallFailed(self, fact, body):
        return f"{body['target']} failed: {body['reason']}"

    def on_CriterionChecked(self, fact, body):
        verdict = "ok" if body["holds"] else "NOT MET"
        return f"criterion {verdict}: {body['says']}" + (f"\n{body['judge']}: {body['reason']}" if body["judge"] else "")

    def on_InDoubt(self, fact, body):
        return f"{RED}IN DOUBT{PLAIN}: {body['tool']} is not repeated; policy: {body['policy']}"

    def on_DoubtSettled(self, fact, body):
        return f"doubt settled by {body['how']}: {body['outcome']}"

    def on_StepWaiting(self, fact, body):
        if body["waits_for"] == "approval":
            args = json.loads(body["arguments"])
            return f"{BOLD}WAITING{PLAIN} for a person; nothing in flight, nothing polling\nTo: {args['to']}  Subject: {args['subject']}"
        return f"waiting ({body['waits_for']}): {body['reason']}"

    def on_ApprovalDecided(self, fact, body):
        return f"{body['decision']} by {body['by']}, bound to sha256:{body['args_hash'][:8]} (the arguments)"

    def on_StepCompleted(self, fact, body):
        return f"{GREEN}done{PLAIN} -> {body['target']}"

    def on_StepFailed(self, fact, body):
        return f"FAILED: {body['reason']}"

    def on_RunEnded(self, fact, body):
        usage = body["usage"]
        return (f"{GREEN if body['status'].lower() == 'completed' else RED}{body['status'].upper()}{PLAIN} {usage['steps']} steps, "
                f"{usage['tokens_in'] + usage['tokens_out']:,} LLM tokens, ${usage['micro_usd'] / 1e6:.4f}, {usage['refusals']} refused")

    def until(self, what, found, seconds=90):
        """Tells facts until one is as wanted, or something outside has happened."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.history.poll(0.05):
                fact = self.history.facts()[-1]
                if fact["run"] == self.run and fact["seq"] >= 0:
                    self.facts.append(fact)
                    self.tell(fact)
            if result := found(self.facts[-1] if self.facts else None):
                return result
            if self.facts and self.facts[-1]["kind"] == "RunEnded":
                raise AssertionError(f"the run ended before {what}")
        raise AssertionError(f"not within {seconds} s: {what}; see {DIRECTORY}/worker-*.log")


def unseen(text):
    """How many characters of it are colour."""
    return len(text) - len(re.sub(r"\033\[\d+m", "", text))


def _values(arguments):
    try:
        return [json.dumps(value, ensure_ascii=False) for value in json.loads(arguments).values()]
    except (ValueError, AttributeError):
        return [arguments]


def decide(space, run, story):
    """The person: on the terminal when there is one."""
    waiting = space.wait_approval(run)
    args = waiting["arguments"] if isinstance(waiting["arguments"], dict) else json.loads(waiting["arguments"])
    say(f"\n{args['body']}\n")
    answer = ""
    if sys.stdin.isatty():
        while answer[:1] not in ("a", "r"):
            answer = input("[a]pprove [r]eject > ").strip().lower()
    else:
        say("(standard input is no terminal: approved)")
    if answer.startswith("r"):
        space.cli("reject", run, "approve_final_email", "--reason", input("why? > ").strip() or "no reason given")
        return False
    space.cli("approve", run, "approve_final_email")
    return True


def owner(space, fact):
    """The worker that wrote a fact."""
    return next(w for w in space.workers if w.alive() and fact["worker"].startswith(w.slot + ":"))


def play(space, tools, model):
    """The run, with its two kills. Returns (run id, kills, state told by myelin)."""
    run = space.start("customer_research_to_followup", {"company": "Acme GmbH", "contact": "jane@acme.example"})
    story = Story(space, run)
    head("RUN", f'{run}  company="Acme GmbH"')
    calling = (lambda: model.ledger("received", run=run, turn=2)) if model else (lambda: True)
    story.until("the research is under way", lambda fact: fact and fact["kind"] in ("CallRefused", "ToolAnswered") and fact["step"] == "research"
                and (not model or fact["kind"] == "CallRefused"))
    wait_until("a model call is in flight", calling, 20)
    first = owner(space, story.facts[-1])
    first.kill()
    story.aside(f"kill -9 worker {first.slot} (pid {first.pid}), model call in flight")
    killed_ms, calls = time.time() * 1000, len(tools.ledger("received", run=run))
    fact = story.until("the other worker goes on", lambda fact: fact and fact["at_ms"] > killed_ms and not fact["worker"].startswith(first.slot + ":") and fact)
    story.aside(f"worker {owner(space, fact).slot} took over after {(fact['at_ms'] - killed_ms) / 1000:.1f} s (Kafka session timeout, your setting); "
                f"{calls} tool call{'s' * (calls != 1)} made before: reused, not repeated", GREEN)
    space.worker(first.slot)
    while True:
        story.until("a person is asked", lambda fact: fact and fact["kind"] == "StepWaiting" and fact["body"]["waits_for"] == "approval")
        if decide(space, run, story):
            break
        story.until("rejected", lambda fact: fact and fact["kind"] == "ApprovalDecided")
    story.until("the tool has the e-mail", lambda _: tools.ledger("acted", tool="send", run=run))
    peer = tools.ledger("received", tool="send", run=run)[0]["peer"]
    second = next(worker for worker in space.workers if worker.alive() and holds_connection(worker.pid, peer))
    second.kill()
    story.aside(f"kill -9 worker {second.slot} (pid {second.pid}): the tool HAS the request, nobody has the answer")
    story.until("the run ends", lambda fact: fact and fact["kind"] == "RunEnded")
    return run, 2, story


def judge(space, tools, run, story):
    """Nobody's word but the tool's own ledger and a reader that shares no code with Myelin."""
    received = len([line for line in tools.ledger("received", tool="send", run=run) if not line.get("probe")])
    acted = len(tools.ledger("acted", tool="send", run=run))
    repeated = sum(len(tools.ledger("acted", key=key)) - 1 for key in {line["key"] for line in tools.ledger("acted") if line["key"]})
    rebuilt = rebuild(story.history.drain().facts(run), run)
    told = space.json("show", run)[0]
    same = all(told[name] == value for name, value in rebuilt.items())
    head("JUDGE", f"the tool's own ledger: received {received}, sent {acted}")
    head("", f"Python reader, read_committed, history only: {'same state' if same else 'ANOTHER STATE'}, {rebuilt['gaps']} gaps, "
             f"{rebuilt['repeats']} repeats")
    good = acted == 1 and repeated == 0 and same and not rebuilt["gaps"] and not rebuilt["repeats"] and told["status"] == "completed"
    return acted, repeated, good


def main():
    for name in ("control", "space"):
        shutil.rmtree(DIRECTORY / name, ignore_errors=True)
    own_model = "MODEL_URL" in os.environ
    space = Space(DIRECTORY / "space", name="demo" + uuid.uuid4().hex[:6], settings={"log_level": '"debug"'})
    say(f"Kafka + Redis on {space.env['MYELIN_KAFKA']} and {space.env['MYELIN_REDIS']}, up in {os.environ.get('MYELIN_UP_SECONDS', '?')} s. "
        "No other server, no database.")
    head("CONTROL", "same job, plain consume-call-produce loop, kill -9 during the e-mail")
    sent = control(space.env["MYELIN_KAFKA"])
    head("", f"the tool's own ledger: sent {sent}" + (f"          {RED}<- the customer got it {sent} times{PLAIN}" if sent > 1 else ""))
    say()
    with space:
        hold = [{"times": 1, "match": {"tool": "send"}, "answer": {"act_and_not_answer": "hold"}}]
        tools = space.double("tool_double", script=hold)
        model = None if own_model else space.double("model_double", "--script", HERE / "model.json")
        if own_model:
            space.env["MODEL_URL"] = os.environ["MODEL_URL"]
        else:
            space.env |= {"MODEL_USD_IN": "2.50", "MODEL_USD_OUT": "10"}  # the price list of the double, for 1M tokens
        space.create().publish(CONTRACT)
        head("CONTRACT", space.cli("contract", "show", CONTRACT).stdout.rstrip())
        say()
        for slot in ("a", "b"):
            space.worker(slot)
        run, kills, story = play(space, tools, model)
        say()
        emails, repeated, good = judge(space, tools, run, story)
        shutil.copy(tools.ledger_path, DIRECTORY / "ledger.jsonl")
        head("TRY", f"kcat -C -b {space.env['MYELIN_KAFKA']} -t {space.name}.history -e -X isolation.level=read_committed")
        head("", f". .local/env; MYELIN_NAMESPACE={space.name} build/myelin show {run}")
        head("", "MODEL_URL=... MODEL_KEY=... make demo  |  make down")
        say(f"demo {'ok' if good else 'FAILED'}: run={run} emails={emails} repeated={repeated} kills={kills}")
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
