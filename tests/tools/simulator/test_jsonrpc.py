"""jsonrpc.py: the exact layouts of C.3, and a client of nothing but sockets and JSON that drives the simulator."""

from __future__ import annotations

import http.client
import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import XenAPI
from hypothesis import given
from hypothesis import strategies as st

from tools.simulator import jsonrpc, model
from tools.simulator.jsonrpc import Request
from tools.simulator.model import parse_type
from tools.simulator.process import SimulatorProcess
from tools.simulator.rpc import DecodeError, Int32, MethodCall, marshal

from .support import MIB, Vm, vm_record

MODEL = model.load()
VERSION_1 = Request(MethodCall("f", []), 7, False)
VERSION_2 = Request(MethodCall("f", []), "seven", True)


class Client:
    """What anybody would write who has no library for JSON-RPC."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(url.rpartition("/")[2], timeout=10)
        self.session = ""

    def post(self, body: bytes) -> http.client.HTTPResponse:
        self.connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
        return self.connection.getresponse()

    def request(self, method: str, *parameters: Any, version: str | None = "2.0", id: int | str = 1) -> dict[str, Any]:
        request: dict[str, Any] = {"method": method, "params": parameters, "id": id}
        if version is not None:
            request["jsonrpc"] = version
        response = self.post(json.dumps(request).encode())
        assert response.status == 200
        assert response.headers["content-type"] == "application/json"
        assert response.headers["access-control-allow-origin"] == "*"
        answer: dict[str, Any] = json.loads(response.read())
        assert answer["id"] == id
        return answer

    def __call__(self, method: str, *parameters: Any) -> Any:
        return self.request(method, self.session, *parameters)["result"]


@pytest.fixture
def client(simulator: SimulatorProcess) -> Iterator[Client]:
    client = Client(simulator.url)
    answer = client.request("session.login_with_password", simulator.username, simulator.password)
    client.session = answer["result"]
    yield client
    client.connection.close()


# The codec


@pytest.mark.parametrize(
    ("type_name", "value", "expected"),
    [
        ("string", 'ä"\\\x00\x1f\n\u2028', r'"ä\"\\\u0000\u001f\n' + '\u2028"'),
        ("int", 2**62, "4611686018427387904"),
        ("float", 1.0, "1.0"),
        ("float", 0.1, "0.1"),
        ("float", math.nan, "NaN"),
        ("float", -math.inf, "-Infinity"),
        ("bool", True, "true"),
        ("datetime", "20260821T02:00:23Z", '"20260821T02:00:23Z"'),
        ("VM ref set", ["a"], '["a"]'),
        ("(int -> float) map", {3: 0.5}, '{"3":0.5}'),
        ("void", None, '""'),
    ],
)
def test_exact_bytes(type_name: str, value: Any, expected: str) -> None:
    tree = marshal(MODEL, parse_type(type_name), value)
    assert jsonrpc.encode_success(VERSION_1, tree).decode() == f'{{"result":{expected},"error":null,"id":7}}'
    assert jsonrpc.encode_success(VERSION_2, tree).decode() == f'{{"jsonrpc":"2.0","result":{expected},"id":"seven"}}'


def test_true_ints_are_numbers_too() -> None:
    assert jsonrpc.encode_success(VERSION_1, {"vm": Int32(3)}) == b'{"result":{"vm":3},"error":null,"id":7}'


@pytest.mark.parametrize(("description", "data"), [(["CODE"], "[]"), (["CODE", "x", "1"], '["x","1"]')])
def test_errors(description: list[str], data: str) -> None:
    listed = json.dumps(description, separators=(",", ":"))
    assert jsonrpc.encode_failure(VERSION_1, description).decode() == f'{{"result":null,"error":{listed},"id":7}}'
    error = f'{{"code":1,"message":"CODE","data":{data}}}'
    assert (
        jsonrpc.encode_failure(VERSION_2, description).decode() == f'{{"jsonrpc":"2.0","error":{error},"id":"seven"}}'
    )


@pytest.mark.parametrize(
    ("document", "parameters", "is_version_2"),
    [
        ('{"method":"f","params":[],"id":1}', [], False),
        ('{"method":"f","params":["a",1,{"b":[true,null]}],"id":"x"}', ["a", 1, {"b": [True, None]}], False),
        ('{"jsonrpc":"2.0","method":"f","id":1}', [], True),
        ('{"jsonrpc":"2.0","method":"f","params":null,"id":1}', [], True),
        ('{"jsonrpc":"2.0","method":"f","params":{"a":1},"id":1}', [{"a": 1}], True),
        ('{"jsonrpc":"2.0","method":"f","params":[1.5,NaN],"id":-1, "more":0}', [1.5, math.nan], True),
        ('{"method":"f","params":[{"a":1,"a":2}],"method":"g","id":1}', [{"a": 1}], False),
        ('{"method":"f","params":[9223372036854775807],"id":1}', [2**63 - 1], False),
    ],
)
def test_requests(document: str, parameters: list[Any], is_version_2: bool) -> None:
    request = jsonrpc.decode_request(document.encode())
    assert request.call.name == "f"
    assert repr(request.call.parameters) == repr(parameters)
    assert request.is_version_2 == is_version_2


NESTED = '{"method":"f","id":1,"params":%s1%s}'

MALFORMED = [
    "",
    "x",
    "[]",
    "1",
    "{}",
    '{"method":"f","params":[],"id":1} x',
    '{"method":"f","params":[],"id":1',
    '{"method":"f","params":[]}',
    '{"method":"f","params":[],"id":null}',
    '{"method":"f","params":[],"id":1.5}',
    '{"method":"f","params":[],"id":true}',
    '{"method":"f","params":[],"id":[]}',
    '{"method":1,"params":[],"id":1}',
    '{"params":[],"id":1}',
    '{"method":"f","id":1}',
    '{"method":"f","params":null,"id":1}',
    '{"method":"f","params":{},"id":1}',
    '{"method":"f","params":"x","id":1}',
    '{"jsonrpc":"2.0","method":"f","params":"x","id":1}',
    '{"jsonrpc":"1.0","method":"f","params":[],"id":1}',
    '{"jsonrpc":2.0,"method":"f","params":[],"id":1}',
    '{"jsonrpc":null,"method":"f","params":[],"id":1}',
    '{"method":"f","params":[9223372036854775808],"id":1}',
    '{"method":"f","params":[' + "1" * 200_000 + '],"id":1}',
    '{"method":"f","params":["\\ud800"],"id":1}',
    '{"method":"f","params":[{"\\udc00":1}],"id":1}',
    '[{"jsonrpc":"2.0","method":"f","params":[],"id":1}]',
    NESTED % ("[" * 200, "]" * 200),
    NESTED % ("[" * 100_000, "]" * 100_000),
    NESTED % ('{"a":' * 5000, "}" * 5000),
]


@pytest.mark.parametrize("document", MALFORMED)
def test_malformed(document: str) -> None:
    with pytest.raises(DecodeError):
        jsonrpc.decode_request(document.encode())


def test_text_is_utf_8() -> None:
    with pytest.raises(DecodeError):
        jsonrpc.decode_request(b'{"method":"\xff","params":[],"id":1}')
    assert jsonrpc.decode_request('{"method":"\U0001f600","params":["\\ud83d\\ude00"],"id":1}'.encode()).call == (
        "\U0001f600",
        ["\U0001f600"],
    )


texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(texts, inner)),
    max_leaves=10,
)


@given(texts, st.lists(values), st.one_of(st.integers(-(2**63), 2**63 - 1), texts))
def test_every_request_is_read(name: str, parameters: list[Any], identity: int | str) -> None:
    document = json.dumps({"method": name, "params": parameters, "id": identity}).encode()
    assert jsonrpc.decode_request(document) == Request(MethodCall(name, parameters), identity, False)


@given(values, st.one_of(st.integers(), texts))
def test_every_answer_is_json(value: Any, identity: int | str) -> None:
    request = Request(MethodCall("f", []), identity, True)
    answer = json.loads(jsonrpc.encode_success(request, value))
    assert answer == {"jsonrpc": "2.0", "result": value, "id": identity}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error(document: bytes) -> None:
    with pytest.raises(DecodeError):
        jsonrpc.decode_request(document)


# Over HTTP


def test_records_have_numbers(client: Client) -> None:
    ref = client("VM.create", vm_record(memory_static_max=256 * MIB, VCPUs_max=2))
    try:
        record = client("VM.get_record", ref)
        assert record["memory_static_max"] == 256 * MIB
        assert record["VCPUs_max"] == 2
        assert record["is_a_template"] is False
        assert record["snapshot_time"] == "19700101T00:00:00Z"
        assert record["affinity"] == "OpaqueRef:NULL"
        assert record["HVM_boot_params"] == {"order": "cd"}
        assert record["VBDs"] == []
        assert isinstance(record["HVM_shadow_multiplier"], float)
        assert client("VM.set_name_label", ref, "ä\U0001f600") == ""
        assert client("VM.get_name_label", ref) == "ä\U0001f600"
        # Ints may also come as decimal text, as from XML-RPC's clients.
        assert client("VM.set_memory_static_max", ref, str(512 * MIB)) == ""
        assert client("VM.get_memory_static_max", ref) == 512 * MIB
    finally:
        client("VM.destroy", ref)


def test_one_session_for_both_formats(client: Client, session: XenAPI.Session, vm: Vm) -> None:
    mine, client.session = client.session, session.handle
    assert client("VM.get_uuid", vm.ref) == vm.uuid
    assert client("VM.get_VCPUs_max", vm.ref) == 2
    assert vm.get_VCPUs_max() == "2"
    client.session = mine


def test_errors_in_both_versions(client: Client) -> None:
    expected = ["HANDLE_INVALID", "VM", "OpaqueRef:x"]
    answer = client.request("VM.get_uuid", client.session, "OpaqueRef:x", version=None)
    assert answer == {"result": None, "error": expected, "id": 1}
    answer = client.request("VM.get_uuid", client.session, "OpaqueRef:x", id="two")
    error = {"code": 1, "message": expected[0], "data": expected[1:]}
    assert answer == {"jsonrpc": "2.0", "error": error, "id": "two"}
    assert client.request("VM.get_uuid", "nobody", "x", version=None)["error"] == ["SESSION_INVALID", "nobody"]
    assert client.request("no.such")["error"] == {"code": 1, "message": "MESSAGE_METHOD_UNKNOWN", "data": ["no.such"]}
    wrong = client.request("VM.set_is_a_template", client.session, "x", 1)["error"]
    assert wrong["message"] == "INTERNAL_ERROR"


def test_a_named_parameter_is_one_struct(client: Client) -> None:
    request = {"jsonrpc": "2.0", "method": "pool.get_all", "params": {"session": client.session}, "id": 1}
    answer = json.loads(client.post(json.dumps(request).encode()).read())
    assert answer["error"]["message"] == "INTERNAL_ERROR"


def test_calls_without_a_class(client: Client, simulator: SimulatorProcess) -> None:
    names = client.request("system.listMethods")["result"]
    assert "VM.start" in names
    assert "VM.get_all_records" in names
    assert client.request("system.isAlive:anything", [1, {"a": None}])["result"] == [1, {"a": None}]
    assert client.request("system.isAlive:x")["error"]["data"] == ['Failure("hd")']
    proxy = XenAPI.Session(simulator.url)
    assert proxy.system.listMethods() == names
    assert getattr(proxy.system, "isAlive:")("x") == {"Status": "Success", "Value": "x"}
    proxy("close")()


@pytest.mark.parametrize("document", [*MALFORMED[:12], "[]", '[{"jsonrpc":"2.0","method":"f","id":1}]'])
def test_what_cannot_be_read_is_an_error_of_http(client: Client, document: str) -> None:
    response = client.post(document.encode())
    assert response.status == 500
    assert response.headers["content-type"] == "text/html"
    assert b"<h1>HTTP 500 internal server error</h1>" in response.read()


@pytest.mark.services
def test_curl(simulator: SimulatorProcess, client: Client) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is missing"
    request = {"jsonrpc": "2.0", "method": "pool.get_all", "params": [client.session], "id": "a"}
    command = [curl, "--silent", "--show-error", "--fail", "--data-binary", "@-", f"{simulator.url}/jsonrpc"]
    ended = subprocess.run(command, input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True, timeout=30)
    assert json.loads(ended.stdout) == {"jsonrpc": "2.0", "result": client("pool.get_all"), "id": "a"}
