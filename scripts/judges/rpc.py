"""Judge: gRPC's own server and client, with the gateway between them. Every kind of call goes through."""

import os
import sys
import threading
from concurrent import futures
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import grpc

from checks import Checks, equal, true
from server import Server

TIMEOUT_S = 30
LONG = 3_000_000  # gRPC takes messages of 4 MB
CALLS, AT_ONCE = 1000, 30
LEFT = threading.Event()  # a call ended before it was answered


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata((("x-trailing", told.get("x-said", "")),))
    return b"echo:" + request


def fail(_, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: é")


def slow(_, context):
    over = threading.Event()
    context.add_callback(over.set)
    if over.wait(TIMEOUT_S):
        LEFT.set()
    return b"late"


def down(request, _):
    yield from (request + str(number).encode() for number in range(5))


def up(requests, _):
    return b"".join(requests)


def both(requests, _):
    yield from (b"<" + request + b">" for request in requests)


def serve():
    """The port of a service without a protocol of its own: messages are bytes."""
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    service = grpc.server(futures.ThreadPoolExecutor(AT_ONCE + 2))
    service.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", methods),))
    port = service.add_insecure_port("127.0.0.1:0")
    service.start()
    return service, port


class Client:
    def __init__(self, server):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        self.key = (("x-api-key", server.key),)

    def call(self, kind, method, request, metadata=None, timeout=TIMEOUT_S):
        make = getattr(self.channel, kind)
        return make(f"/shop.Orders/{method}")(request, metadata=metadata or self.key, timeout=timeout)

    def refusal(self, method, metadata=None, timeout=TIMEOUT_S):
        try:
            self.call("unary_unary", method, b"x", metadata, timeout)
        except grpc.RpcError as error:
            return error.code(), error.details()
        raise AssertionError("it was not refused")


def one_call(client):
    """A call has its answer, with metadata at its begin and its end"""
    call = client.channel.unary_unary("/shop.Orders/Unary")
    answer, ended = call.with_call(b"hi", metadata=(*client.key, ("x-said", "é".encode().hex())), timeout=TIMEOUT_S)
    equal(answer, b"echo:hi", "answer")
    true(("x-initial", "1") in [tuple(one) for one in ended.initial_metadata()], "no initial metadata")
    trailing = [tuple(one) for one in ended.trailing_metadata()]
    true(("x-trailing", "é".encode().hex()) in trailing, f"trailing metadata {trailing}")


def long_message(client):
    """A long message passes both ways"""
    message = os.urandom(LONG)
    true(client.call("unary_unary", "Unary", message) == b"echo:" + message, "it was changed")


def errors(client):
    """An error of the service keeps its code and its text"""
    equal(client.refusal("Fail"), (grpc.StatusCode.FAILED_PRECONDITION, "not now: é"), "error")


def no_key(client):
    """Without a key there is no call"""
    equal(client.refusal("Unary", (("x-other", "1"),))[0], grpc.StatusCode.UNAUTHENTICATED, "code")


def deadline(client):
    """A deadline of the client holds, and the service learns that nobody waits"""
    equal(client.refusal("Slow", timeout=0.3)[0], grpc.StatusCode.DEADLINE_EXCEEDED, "code")
    true(LEFT.wait(TIMEOUT_S / 2), "the service was not told")


def streams(client):
    """Streams pass both ways"""
    equal(list(client.call("unary_stream", "Down", b"d")), [b"d0", b"d1", b"d2", b"d3", b"d4"], "stream of answers")
    equal(client.call("stream_unary", "Up", iter([b"a", b"b", b"c"])), b"abc", "answer to a stream")


def conversation(client):
    """Each message of a conversation arrives before the next is sent"""
    said = threading.Event()

    def messages():
        yield b"1"
        true(said.wait(TIMEOUT_S), "no answer to the first")
        yield b"2"

    answers = client.call("stream_stream", "Both", messages())
    equal(next(answers), b"<1>", "first answer")
    said.set()
    equal(list(answers), [b"<2>"], "the others")


def many(client):
    """Many calls at once have their own answers"""
    def call(number):
        return client.call("unary_unary", "Unary", str(number).encode())

    with futures.ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(call, range(CALLS)))
    equal(answers, [f"echo:{number}".encode() for number in range(CALLS)], "answers")


def main():
    service, port = serve()
    settings = (
        f'[gateway.services.shop]\nendpoints = ["http://127.0.0.1:{port}"]\nprotocol = "http2"\n'
        '[[gateway.routes]]\npath = "/shop.Orders/{method}"\nservice = "shop"\nscopes = ["predict"]\n'
    )
    checks = Checks()
    with Server(settings) as server:
        client = Client(server)
        checks.run_all([one_call, long_message, errors, no_key, deadline, streams, conversation, many], client)
        client.channel.close()
    checks.run("the server ended with exit code 0", equal, server.exit_code, 0, "exit code")
    service.stop(None)
    checks.finish()


main()
