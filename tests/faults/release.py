"""Releases what the meter keeps in quarantine, as an operator does once the cause is gone."""

import grpc

from tests.faults.site import Site
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import meter_service_pb2_grpc

_CALL_SECONDS_MAX = 20
_PAGE_SIZE = 1_000


def release_all(site: Site) -> int:
    """Release every held entry; returns how many there were."""
    metadata = (("authorization", f"Bearer {site.api_key}"),)
    count = 0
    with grpc.insecure_channel(site.meter.grpc) as channel:
        stub = meter_service_pb2_grpc.MeterServiceStub(channel)
        while True:
            page = stub.ListQuarantine(
                pb.ListQuarantineRequest(state=pb.QUARANTINE_STATE_HELD, page_size=_PAGE_SIZE),
                metadata=metadata,
                timeout=_CALL_SECONDS_MAX,
            )
            for entry in page.entries:
                stub.ReleaseQuarantine(
                    pb.ReleaseQuarantineRequest(quarantine_id=entry.quarantine_id),
                    metadata=metadata,
                    timeout=_CALL_SECONDS_MAX,
                )
                count += 1
            if not page.entries:
                return count
