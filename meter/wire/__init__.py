"""gRPC and protobuf: the only place of the service that speaks them."""
