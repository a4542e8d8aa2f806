"""A TCP proxy before a Kafka broker, for what no broker does on request: requests and answers that are lost, late, or made up.

It reads the head of each frame (api key, version, correlation id) and no more. In the answers that tell where brokers are it puts its
own port in the place of the broker's, so that a client which is given `address` never goes past it; others use the broker as it is.
"""

import socket
import struct
import threading

PRODUCE, METADATA, FIND_COORDINATOR, INIT_PRODUCER_ID = 0, 3, 10, 22
ADD_OFFSETS_TO_TXN, END_TXN, TXN_OFFSET_COMMIT = 25, 26, 28

# What a rule may answer, of one request. "Cut" closes the client's connection, upon which librdkafka asks again by itself.
PASS = "pass"
LOSE = "lose"                # cut; the broker never sees it
HIDE = "hide"                # cut; executed, the answer is lost
LATE = "late"                # cut; kept, until `release` sends it to the broker
SWALLOW = "swallow"          # the broker never sees it, and nobody is told
SWALLOW_ANSWER = "mute"        # executed, and nobody is told
DELAY = "delay"              # the answer comes 600 ms late


class Request:
    def __init__(self, frame):
        self.key, self.version, self.correlation = struct.unpack(">hhi", frame[:8])
        self.frame = frame

    def of(self, transactional_id):
        return transactional_id.encode() in self.frame


def made_up(request, code):
    """The answer to EndTxn or AddOffsetsToTxn: an error code. Both have the same form: throttle time, code."""
    return struct.pack(">iih", request.correlation, 0, code)


def no_coordinator(request):
    """The answer to FindCoordinator (version 1 or 2) of a broker that has just come back: COORDINATOR_NOT_AVAILABLE, no message, no node."""
    assert request.version in (1, 2), request.version
    return struct.pack(">iihhihi", request.correlation, 0, 15, -1, -1, 0, -1)


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return data


def read_frame(connection):
    return read_exactly(connection, struct.unpack(">i", read_exactly(connection, 4))[0])


def write_frame(connection, frame):
    connection.sendall(struct.pack(">i", len(frame)) + frame)


def close(*connections):
    for connection in list(connections):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        connection.close()


class Proxy:
    """`rule` gets each Request and says what becomes of it: one of the words above, or the bytes of an answer. It may be replaced at
    any time, and is called by one thread at a time. `answered` gets each request whose answer has come, before it is passed on."""

    def __init__(self, broker, rule=None):
        host, port = broker.split(":")
        self.broker = (host, int(port))
        self.rule = rule or (lambda request: PASS)
        self.answered = lambda request: None
        self.kept, self.done = [], []
        self.lock = threading.RLock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.elsewhere = (host.encode() + struct.pack(">i", self.broker[1]), host.encode() + struct.pack(">i", port))
        self.connections = set()
        self.open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self):
        """Sends what was kept, each on a connection of its own, and waits for the broker's answers."""
        for request in self.kept:
            with socket.create_connection(self.broker) as late:
                write_frame(late, request.frame)
                self.done.append(read_frame(late))
        self.kept.clear()

    def cut(self):
        """Closes all connections; new ones are taken."""
        close(*self.connections)

    def close(self):
        self.open = False
        close(self.listener)
        self.cut()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _accept(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self.broker)
            except OSError:
                close(client)
                continue
            for one in (client, broker):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections |= {client, broker}
            waiting = {}
            for pump in (self._requests, self._answers):
                threading.Thread(target=self._run, args=(pump, client, broker, waiting), daemon=True).start()

    def _run(self, pump, client, broker, waiting):
        try:
            while True:
                pump(client, broker, waiting)
        except OSError:
            close(client, broker)
            self.connections -= {client, broker}

    def _requests(self, client, broker, waiting):
        request = Request(read_frame(client))
        with self.lock:
            fate = self.rule(request)
        if isinstance(fate, bytes):
            write_frame(client, fate)
            return
        if fate in (LOSE, LATE):
            if fate == LATE:
                self.kept.append(request)
            raise ConnectionError(fate)
        if fate != SWALLOW:
            waiting[request.correlation] = (request, fate)
            write_frame(broker, request.frame)

    def _answers(self, client, broker, waiting):
        answer = read_frame(broker)
        request, fate = waiting.pop(struct.unpack(">i", answer[:4])[0])
        if fate == HIDE:
            raise ConnectionError(fate)
        if fate == SWALLOW_ANSWER:
            return
        if fate == DELAY:
            threading.Event().wait(0.6)
        with self.lock:
            self.answered(request)
        if request.key in (METADATA, FIND_COORDINATOR):
            answer = answer.replace(*self.elsewhere)
        write_frame(client, answer)
