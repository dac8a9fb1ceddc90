"""A bare asyncio grpcio server: the bound of unary calls. Prints its address."""

import asyncio

import grpc

from tokenworks.meter.v1 import meter_service_pb2, meter_service_pb2_grpc


class Echo(meter_service_pb2_grpc.MeterServiceServicer):
    """Answers at once and does nothing."""

    async def RecordUsage(  # noqa: N802
        self,
        request: meter_service_pb2.RecordUsageRequest,
        context: "grpc.aio.ServicerContext[object, object]",  # noqa: ARG002
    ) -> meter_service_pb2.RecordUsageResponse:
        """Answer RECORDED for each event."""
        outcomes = [1] * len(request.events)
        return meter_service_pb2.RecordUsageResponse(outcomes=outcomes)  # type: ignore[arg-type]


async def main() -> None:
    """Serve until terminated."""
    server = grpc.aio.server()
    meter_service_pb2_grpc.add_MeterServiceServicer_to_server(Echo(), server)  # type: ignore[abstract]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
