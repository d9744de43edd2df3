"""What was measured: GET /rrd_updates, /vm_rrd, /host_rrd, /sr_rrd.

Source: ocaml/xapi/rrdd_proxy.ml and xapi's rrd library (xport and RRD as XML, xport as JSON).
"""

from __future__ import annotations

import json
import time
from xml.sax.saxutils import escape

from ..data_sources import ARCHIVES, STEP, DataSource, archive, of_host, of_repository, of_vm
from .request import Refused, Request

_FUNCTIONS = ("AVERAGE", "MIN", "MAX")
_XML = "text/xml"
_JSON = "application/json"


def _number(value: float) -> str:
    return f"{value:.16g}"


def _respond(request: Request, content_type: str, text: str) -> None:
    body = text.encode("utf-8")
    request.answer({"content-type": content_type, "content-length": str(len(body))})
    request.write(body)


# What is new


def rrd_updates(request: Request) -> None:
    """Everything that was measured since `start`, of this host's VMs and if wanted of itself."""
    parameters = request.parameters
    untrusted_start = parameters.get("start", "")
    try:
        start = int(untrusted_start) if len(untrusted_start) <= 20 else -1
        wanted = int(parameters["interval"]) if "interval" in parameters else None
    except ValueError:
        raise Refused(400) from None
    if start < 0:
        raise Refused(400)
    now = int(time.time())
    interval, rows = archive(now - start)
    for candidate, count in ARCHIVES:
        if wanted is not None and candidate >= wanted:
            interval, rows = candidate, count
            break
    functions = [parameters["cf"]] if parameters.get("cf") else list(_FUNCTIONS if interval > STEP else _FUNCTIONS[:1])
    if not set(functions) <= set(_FUNCTIONS):
        raise Refused(400)
    columns = [
        (f"{function}:{owner}:{source.name}", source) for function in functions for owner, source in _all(request)
    ]
    end = now // interval * interval
    first = max(start // interval * interval + interval, end - (rows - 1) * interval)
    moments = list(range(end, first - 1, -interval))
    if _wants_json(request):
        _respond(request, _JSON, _json_export(interval, end, moments, columns))
    else:
        _respond(request, _XML, _xml_export(interval, end, moments, columns))


def _all(request: Request) -> list[tuple[str, DataSource]]:
    """Whose it is, and what, of everything that is asked for."""
    state, parameters = request.state, request.parameters
    found = []
    if parameters.get("host") == "true":
        uuid = state.database.get("host", request.host.ref, "uuid")
        found += [(f"host:{uuid}", source) for source in of_host(state, request.host.ref)]
    only = parameters.get("vm_uuid")
    for vm in state.database.get("host", request.host.ref, "resident_VMs"):
        uuid = state.database.get("VM", vm, "uuid")
        if not only or only == uuid:
            found += [(f"vm:{uuid}", source) for source in of_vm(state, vm)]
    if "sr_uuid" in parameters:
        for sr in state.database.refs("SR"):
            uuid = state.database.get("SR", sr, "uuid")
            if parameters["sr_uuid"] in ("all", uuid):
                found += [(f"sr:{uuid}", source) for source in of_repository(state, sr)]
    return found


def _wants_json(request: Request) -> bool:
    if request.parameters.get("json") == "true":
        return True
    for kind in request.http.headers.get("Accept", "").lower().split(","):
        name = kind.partition(";")[0].strip()
        if name in (_JSON, "*/*", "application/*"):
            return True
        if name in (_XML, "application/xml", "text/*"):
            return False
    return False


def _meta(interval: int, end: int, moments: list[int]) -> dict[str, int]:
    return {"start": min(moments, default=end), "step": interval, "end": end, "rows": len(moments)}


def _json_export(interval: int, end: int, moments: list[int], columns: list[tuple[str, DataSource]]) -> str:
    # Numbers are strings there.
    meta = {name: str(value) for name, value in _meta(interval, end, moments).items()}
    legend = [name for name, _ in columns]
    data = [
        {"t": str(moment), "values": [_number(source.value(moment)) for _, source in columns]} for moment in moments
    ]
    return json.dumps({"meta": {**meta, "columns": str(len(columns)), "legend": legend}, "data": data})


def _xml_export(interval: int, end: int, moments: list[int], columns: list[tuple[str, DataSource]]) -> str:
    meta = {**_meta(interval, end, moments), "columns": len(columns)}
    pieces = [f"<{name}>{value}</{name}>" for name, value in meta.items()]
    pieces += ["<legend>", *(f"<entry>{escape(name)}</entry>" for name, _ in columns), "</legend>"]
    rows = []
    for moment in moments:
        values = "".join(f"<v>{_number(source.value(moment))}</v>" for _, source in columns)
        rows.append(f"<row><t>{moment}</t>{values}</row>")
    return f"<xport><meta>{''.join(pieces)}</meta><data>{''.join(rows)}</data></xport>"


# All there is


def vm_rrd(request: Request) -> None:
    """All measurements of a VM; on another host, if the VM is there."""
    vm = request.find("VM", "uuid")
    if vm is None:
        raise Refused(400)
    state = request.state
    host = state.database.get("VM", vm, "resident_on")
    if state.database.exists("host", host) and host != request.host.ref:
        raise request.redirect(host)
    _respond(request, _XML, _rrd(of_vm(state, vm)))


def host_rrd(request: Request) -> None:
    """All measurements of this host."""
    _respond(request, _XML, _rrd(of_host(request.state, request.host.ref)))


def sr_rrd(request: Request) -> None:
    """All measurements of a storage repository."""
    sr = request.find("SR", "uuid")
    if sr is None:
        raise Refused(400)
    _respond(request, _XML, _rrd(of_repository(request.state, sr)))


def _rrd(sources: list[DataSource]) -> str:
    now = int(time.time())
    pieces = [f"<version>0003</version><step>{STEP}</step><lastupdate>{now}</lastupdate>"]
    for source in sources:
        pieces.append(
            f"<ds><name>{escape(source.name)}</name><type>GAUGE</type><minimal_heartbeat>300.0000</minimal_heartbeat>"
            f"<min>0.0</min><max>{'Infinity' if source.maximum == float('inf') else _number(source.maximum)}</max>"
            f"<last_ds>{_number(source.value(now))}</last_ds><value>0.0</value><unknown_sec>0</unknown_sec></ds>"
        )
    for interval, rows in ARCHIVES:
        for function in _FUNCTIONS if interval > STEP else _FUNCTIONS[:1]:
            pieces.append(_archive(sources, function, interval, rows, now))
    return f'<?xml version="1.0"?><rrd>{"".join(pieces)}</rrd>'


def _archive(sources: list[DataSource], function: str, interval: int, rows: int, now: int) -> str:
    prepared = (
        "<ds><primary_value>0.0</primary_value><secondary_value>0.0</secondary_value><value>0.0</value>"
        "<unknown_datapoints>0</unknown_datapoints></ds>"
    )
    end = now // interval * interval
    database = []
    for moment in range(end - (rows - 1) * interval, end + 1, interval):
        values = "".join(f"<v>{_number(source.value(moment))}</v>" for source in sources)
        database.append(f"<row>{values}</row>")
    return (
        f"<rra><cf>{function}</cf><pdp_per_row>{interval // STEP}</pdp_per_row><params><xff>0.5000</xff></params>"
        f"<cdp_prep>{prepared * len(sources)}</cdp_prep><database>{''.join(database)}</database></rra>"
    )
