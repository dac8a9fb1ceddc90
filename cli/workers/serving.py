"""Serving with as many processes as the settings say."""

from collections.abc import Callable

from cli.meter_process import StopRequest, run_meter
from cli.settings import Settings
from cli.workers.supervisor import run_workers
from meter.options import Addresses, MeterOptions


def serve_with(
    settings: Settings,
    options: MeterOptions,
    *,
    stop: StopRequest,
    ready: Callable[[Addresses], None],
) -> None:
    """Serve until `stop`, with this process or with several; raises CommandError.

    `ready` is called once calls are answered, by all of them.
    """
    customer_metrics_max = settings.customer_metrics_max
    if settings.workers == 1:
        run_meter(options, customer_metrics_max=customer_metrics_max, stop=stop, ready=ready)
        return
    run_workers(
        options,
        count=settings.workers,
        customer_metrics_max=customer_metrics_max,
        log_level=settings.log_level,
        log_format=settings.log_format,
        stop=stop,
        ready=ready,
    )
