"""An account to report for, in a real meter."""

from typing import Final

import grpc

from tests.running_meter import RunningMeter
from tokenworks.meter.v1.account_service_pb2 import CreateAccountRequest
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

ACCOUNT: Final = "acme"


def create_account(meter: RunningMeter) -> None:
    """Create `ACCOUNT`."""
    with grpc.insecure_channel(meter.target) as channel:
        AccountServiceStub(channel).CreateAccount(
            CreateAccountRequest(handle=ACCOUNT, account=ACCOUNT),
            metadata=(("authorization", f"Bearer {meter.api_key}"),),
        )
