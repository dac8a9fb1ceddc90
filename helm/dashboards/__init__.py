"""The Grafana dashboards of the chart, as code: `python -m helm.dashboards` writes their JSON."""
