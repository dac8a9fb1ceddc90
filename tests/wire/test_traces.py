"""Traces of a meter that runs, as a collector receives them over OTLP."""

import os
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.wire.collector import attributes, running_collector
from tests.wire.session import CALL_SECONDS_MAX, Session, event, opening, rows
from tokenworks.meter.v1 import meter_service_pb2

TRACE, PARENT = os.urandom(16), os.urandom(8)


def test_trace__from_call_to_commit(cluster: Cluster, tmp_path: Path) -> None:
    """A call goes on its caller's trace, with the commit it waited for; counting has its own."""
    with (
        running_collector() as (received, url),
        cluster.database() as database_url,
        running_meter_on(
            database_url,
            folder=tmp_path,
            settings={"otlp_traces_endpoint": url, "log_format": "json"},
        ) as meter,
    ):
        session = Session(meter)
        session.create_account("acme")
        traced = (*session.metadata, ("traceparent", f"00-{TRACE.hex()}-{PARENT.hex()}-01"))
        stub = session.channel.unary_unary(
            "/tokenworks.meter.v1.MeterService/RecordUsage",
            request_serializer=meter_service_pb2.RecordUsageRequest.SerializeToString,
            response_deserializer=meter_service_pb2.RecordUsageResponse.FromString,
        )
        request = meter_service_pb2.RecordUsageRequest(events=[event(), event()])
        stub(request, metadata=traced, timeout=CALL_SECONDS_MAX)
        session.exchange(opening("gpu-1"), rows(1, event()))
        session.counted()
        with pytest.raises(grpc.RpcError):
            stub(meter_service_pb2.RecordUsageRequest(), metadata=traced, timeout=CALL_SECONDS_MAX)
        assert meter.stop() == 0
        log = meter.log.read_text("utf-8")
    record, refused = received.of("tokenworks.meter.v1.MeterService/RecordUsage")
    assert (record.trace_id, record.parent_span_id) == (TRACE, PARENT)
    assert attributes(record)["tokenworks.key_id"].startswith("key_")  # type: ignore[attr-defined]
    assert refused.status.code == Status.STATUS_CODE_ERROR
    (stream,) = received.of("tokenworks.meter.v1.MeterService/StreamUsage")
    assert stream.trace_id != TRACE
    assert attributes(stream)["tokenworks.producer"] == "gpu-1"
    commits = {span.trace_id: span for span in received.of("commit")}
    assert commits.keys() == {TRACE, stream.trace_id}
    assert commits[TRACE].parent_span_id == record.span_id
    assert commits[stream.trace_id].parent_span_id == stream.span_id
    assert attributes(commits[TRACE])["tokenworks.events"] == 2
    assert record.start_time_unix_nano <= commits[TRACE].end_time_unix_nano
    counted = received.of("counting round")
    assert sum(attributes(span)["tokenworks.events"] for span in counted) == 3  # type: ignore[misc]
    assert received.services == {"tokenworks"}
    assert f'"trace_id": "{TRACE.hex()}"' in log
