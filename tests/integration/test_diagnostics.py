"""pprof and gops, asked as their clients ask, of a process of its own: the clock, which needs nothing that answers."""

import gzip
import json
import os
import re
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.message import Message
from structlog.testing import capture_logs

from dev import reference
from dev.processes import Child, wait_for
from shared.runtime import diagnostics, settings
from shared.runtime.diagnostics import gops, heap, pprof, sampler

#: In the process's environment, where no page may show it.
PASSWORD = "hunter2-is-secret"

#: What a reader of profiles expects, as `number: name type`; ours is written without it.
MESSAGES = {
    "ValueType": "1: type int64, 2: unit int64",
    "Label": "1: key int64, 2: str int64, 3: num int64, 4: num_unit int64",
    "Sample": "1: location_id uint64*, 2: value int64*, 3: label Label*",
    "Mapping": "1: id uint64, 5: filename int64, 7: has_functions bool, 8: has_filenames bool, 9: has_line_numbers bool",
    "Line": "1: function_id uint64, 2: line int64",
    "Location": "1: id uint64, 2: mapping_id uint64, 3: address uint64, 4: line Line*",
    "Function": "1: id uint64, 2: name int64, 3: system_name int64, 4: filename int64, 5: start_line int64",
    "Profile": "1: sample_type ValueType*, 2: sample Sample*, 3: mapping Mapping*, 4: location Location*, 5: function Function*,"
    " 6: string_table string*, 9: time_nanos int64, 10: duration_nanos int64, 11: period_type ValueType, 12: period int64,"
    " 13: comment int64*, 14: default_sample_type int64",
}


def _profile_class() -> Callable[[], Message]:
    of_field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="p", syntax="proto3")
    for name, described in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field, kind, many in re.findall(r"(\d+): (\w+) (\w+)(\*?)", described):
            added = message.field.add(name=field, number=int(number), label=of_field.LABEL_REPEATED if many else of_field.LABEL_OPTIONAL)
            if kind in MESSAGES:
                added.type, added.type_name = of_field.TYPE_MESSAGE, f".p.{kind}"
            else:
                added.type = getattr(of_field, f"TYPE_{kind.upper()}")
    return message_factory.GetMessages([file])["p.Profile"]


new_profile = _profile_class()


class Read:
    """A profile as a reader sees it: samples with names in place of numbers."""

    def __init__(self, body: bytes) -> None:
        message = new_profile()
        assert message.ParseFromString(gzip.decompress(body)) > 0
        text = list(message.string_table)
        assert text[0] == ""
        functions = {function.id: (text[function.name], text[function.filename]) for function in message.function}
        places = {place.id: functions[place.line[0].function_id] for place in message.location}
        assert {place.mapping_id for place in message.location} == {1} == {mapping.id for mapping in message.mapping}
        self.kinds = [(text[kind.type], text[kind.unit]) for kind in message.sample_type]
        self.default = text[message.default_sample_type]
        self.comments = [text[number] for number in message.comment]
        self.samples = [
            ([places[number] for number in sample.location_id], list(sample.value), {text[it.key]: text[it.str] for it in sample.label})
            for sample in message.sample
        ]

    def total(self, kind: str, where: Callable[[list[tuple[str, str]]], bool]) -> int:
        index = [name for name, _unit in self.kinds].index(kind)
        return sum(values[index] for stack, values, _labels in self.samples if where(stack))


class Process:
    """A clock with both ports open."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.config = directory / "gops"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TSG_")},
            "TSG_DATABASE_URL": f"postgresql://tsg:{PASSWORD}@127.0.0.1:1/tsg",
            "TSG_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0",
            "TSG_PPROF_ENABLE": "true",
            "TSG_PPROF_PORT": "0",
            "TSG_GOPS_ENABLE": "true",
            "TSG_GOPS_PORT": "0",
            "GOPS_CONFIG_DIR": str(self.config),
            **variables,
        }
        command = [Path(sys.executable).parent / "tsg-clock", "--log-format=json"]
        self.child = Child(command, log=directory / "clock.log", env=environment)
        self.child.wait_until(lambda: "ticking" in self.child.tail(1000))
        self.addresses = {event["kind"]: event["address"] for event in self.events("diagnostics_listening")}

    def events(self, name: str) -> list[dict[str, str]]:
        lines = [json.loads(line) for line in self.child.tail(1000).splitlines()]
        return [line for line in lines if line["event"] == name]

    def get(self, target: str) -> requests.Response:
        return requests.get(f"http://{self.addresses['pprof']}/debug/pprof/{target}", timeout=30)

    def ask(self, question: int) -> bytes:
        """As gops does: a byte there, and everything back until the end."""
        host, port = self.addresses["gops"].rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(bytes([question]))
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("diagnostics"))
    yield process
    process.child.stop()


def spin(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1000))


# pprof


def test_a_profile_says_where_the_processor_time_of_other_threads_goes() -> None:
    """In this process: it takes somebody who does something."""
    stop = threading.Event()
    busy = threading.Thread(target=spin, args=[stop], name="busy")
    idle = threading.Thread(target=stop.wait, name="idle")
    busy.start()
    idle.start()
    try:
        samples = sampler.sample(0.5)
    finally:
        stop.set()
        busy.join()
        idle.join()
    read = Read(samples.profile("test").encode())
    assert read.kinds == [("samples", "count"), ("wall", "nanoseconds"), ("cpu", "nanoseconds")]

    def spins(stack: list[tuple[str, str]]) -> bool:
        return (f"{__name__}.spin", __file__) in stack

    assert {labels["thread"] for stack, _values, labels in read.samples if spins(stack)} == {"busy"}
    wall = {name: sum(values[1] for _stack, values, labels in read.samples if labels["thread"] == name) for name in ("busy", "idle")}
    assert wall["idle"] == pytest.approx(wall["busy"], rel=0.5), "who waits is seen as well as who works"
    if sys.platform == "linux":
        assert read.default == "cpu"
        assert read.total("cpu", spins) > 0.5 * read.total("cpu", bool)


def test_a_profile_comes_over_http_in_the_format_of_pprof(process: Process) -> None:
    answer = process.get("profile?seconds=0.2")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/octet-stream")
    assert any(stack[-1][0] == "__main__.<module>" for stack, _values, _labels in Read(answer.content).samples)


def test_one_profile_is_taken_at_a_time(process: Process) -> None:
    first = threading.Thread(target=process.get, args=["profile?seconds=2"])
    first.start()
    assert wait_for(lambda: "sampler" in process.get("goroutine?debug=2").text, seconds=10)
    second = process.get("profile?seconds=0.1")
    first.join()
    assert second.status_code == 409
    assert "a profile is being taken already" in second.text


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("profile?seconds=0", 400),
        ("profile?seconds=301", 400),
        ("profile?seconds=nan", 400),
        ("profile?seconds=soon", 400),
        ("profile?format=html", 400),
        ("heap?seconds=-1", 400),
        ("goroutine?debug=3", 400),
        ("trace", 404),
        ("symbol", 501),
        ("nothing", 404),
        ("../../metrics", 404),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(process: Process, target: str, status: int) -> None:
    answer = process.get(target)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 10 < len(answer.text) < 200


def test_the_heap_is_told_by_type_at_once_and_by_place_for_what_is_asked_for_meanwhile(process: Process) -> None:
    by_type = Read(process.get("heap").content)
    assert by_type.kinds == [("inuse_objects", "count"), ("inuse_space", "bytes")]
    assert by_type.total("inuse_space", lambda stack: stack[0][0] == "builtins.dict") > 100_000
    assert "builtins.dict" in process.get("heap?debug=1").text

    kept: list[bytearray] = []

    def keep() -> None:
        if wait_for(tracemalloc.is_tracing, seconds=30):
            kept.extend(bytearray(100_000) for _ in range(10))

    keeper = threading.Thread(target=keep)
    keeper.start()
    by_place = Read(heap.between("test", 0.5).encode())
    keeper.join()
    assert by_place.total("inuse_space", lambda stack: stack[0][1] == __file__) >= 1_000_000
    assert by_place.comments[-1] == "asked for in 0.5 seconds and still held"


def test_all_threads_are_told_with_their_stacks_and_no_values(process: Process) -> None:
    for answer in (process.get("goroutine?debug=2").text, process.get("goroutine?debug=1").text, process.ask(0x1).decode()):
        assert "tsg_workers.scheduler.main" in answer
        assert "MainThread" in answer
        assert PASSWORD not in answer
    names = [labels["thread"] for _stack, _values, labels in Read(process.get("goroutine").content).samples]
    assert {"MainThread", "diagnostics-gops", "diagnostics-pprof"} <= set(names)


def test_the_index_names_what_there_is(process: Process) -> None:
    index = process.get("").text
    for page in pprof.PAGES:
        assert f'href="/debug/pprof/{page}"' in index
    assert requests.get(f"http://{process.addresses['pprof']}/debug/pprof", timeout=5).text == index


def test_the_command_line_is_told_and_no_secret_ever() -> None:
    words = [
        "tsg-x",
        "--redis=rediss://user:hunter2@host/0",
        "--secret-keys=hunter2",
        "--password=hunter2",
        "--port=3000",
        "postgresql://h/d",
    ]
    told = list(map(pprof._without_secrets, words))
    assert told == ["tsg-x", "--redis=rediss://***@host/0", "--secret-keys=***", "--password=***", "--port=3000", "postgresql://h/d"]


def test_no_flag_takes_a_secret() -> None:
    secret = {"TSG_SECRET_KEYS", "TSG_DATABASE_URL", "TSG_REDIS_URL", "TSG_CRDB_PASSWORD", "NOMAD_TOKEN"}
    assert secret <= set(settings.variables())
    assert not secret & set(reference._flags())


def test_the_command_line_is_the_one_that_started_the_process(process: Process) -> None:
    words = process.get("cmdline").text.split("\0")
    assert words[-1] == "--log-format=json"
    assert words[-2].endswith("/tsg-clock")


# gops


def test_gops_is_told_what_python_has_in_the_place_of_what_go_has(process: Process) -> None:
    assert process.ask(0x2) == b"ok"
    memory = dict(line.split(": ", 1) for line in process.ask(0x3).decode().splitlines())
    assert int(memory["num-gc"]) > 0
    assert memory["enable-gc"] == "true"
    assert re.fullmatch(r"CPython 3\.\d+\.\d+\S*, triton-service-groups \S+\n", process.ask(0x4).decode())
    stats = dict(line.split(": ", 1) for line in process.ask(0x7).decode().splitlines())
    assert stats["program"] == f"tsg-clock (process {process.child.pid})"
    assert int(stats["threads"]) >= 3
    assert Read(process.ask(0x5)).default == "inuse_space"
    assert process.ask(0x9) == Path(sys.executable).read_bytes()
    assert b"Nothing was changed" in process.ask(0x10)


def test_a_question_that_is_none_is_answered_with_nothing(process: Process) -> None:
    assert process.ask(0xFF) == b""


def test_a_cpu_profile_comes_through_gops_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gops, "PROFILE_SECONDS", 0.2)
    opened = diagnostics.start(chosen(TSG_GOPS_ENABLE="1", TSG_GOPS_PORT="0"), "test")
    port = int(opened.ports[0].server_address[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(bytes([0x6]))
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    opened.stop()
    assert Read(answer).kinds[-1] == ("cpu", "nanoseconds")


# Ports


def chosen(**variables: str) -> settings.Settings:
    return settings.load(variables, needs_keys=False)


def test_nothing_listens_unless_it_is_turned_on() -> None:
    assert diagnostics.start(chosen(), "test").ports == []


def test_a_port_that_is_taken_is_no_reason_to_stop_and_gops_finds_a_process_by_its_number(process: Process, tmp_path: Path) -> None:
    taken = {kind: address.rsplit(":", 1)[1] for kind, address in process.addresses.items()}
    second = Process(tmp_path, TSG_PPROF_PORT=taken["pprof"], TSG_GOPS_PORT=taken["gops"])
    assert {event["kind"] for event in second.events("diagnostics_port_taken")} == {"pprof", "gops"}
    assert second.get("cmdline").status_code == 200
    assert str(second.child.pid) in second.ask(0x7).decode()
    file = second.config / str(second.child.pid)
    assert file.read_text() == second.addresses["gops"].rsplit(":", 1)[1]
    second.child.stop()
    assert second.child.status == 0
    assert not file.exists(), "it is found for as long as it runs"


def test_an_address_that_is_not_ours_is_told_and_no_reason_to_stop() -> None:
    elsewhere = {"TSG_PPROF_BIND": "192.0.2.1", "TSG_GOPS_BIND": "no.such.host.invalid"}
    with capture_logs() as logs:
        assert diagnostics.start(chosen(TSG_PPROF_ENABLE="1", TSG_GOPS_ENABLE="1", **elsewhere), "test").ports == []
    assert {line["kind"] for line in logs if line["event"] == "diagnostics_unavailable"} == {"pprof", "gops"}


def test_the_network_is_warned_of() -> None:
    assert diagnostics._is_loopback("127.0.0.1")
    assert diagnostics._is_loopback("::1")
    assert diagnostics._is_loopback("localhost")
    assert not diagnostics._is_loopback("0.0.0.0")
    assert not diagnostics._is_loopback("10.0.0.3")
    assert not diagnostics._is_loopback("tsg.example.com")


def test_who_asks_too_much_at_once_is_not_answered(process: Process) -> None:
    host, port = process.addresses["gops"].rsplit(":", 1)
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(diagnostics.MOST)]
    assert wait_for(
        lambda: process.get("goroutine?debug=2").text.count("gops.handler.<locals>.Handler.handle") == diagnostics.MOST, seconds=10
    )
    with socket.create_connection((host, int(port)), timeout=10) as one_more:
        assert one_more.recv(1) == b""
    for connection in silent:
        connection.close()
    assert wait_for(lambda: process.get("goroutine?debug=2").text.count("Handler.handle") <= 1, seconds=10)
