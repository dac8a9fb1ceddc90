"""Pictures of the dashboards: their very JSON, answered by a real Prometheus and a real Postgres.

No Grafana server can be had where these are made. What Grafana does with a panel of each kind that
the dashboards use is done here anew, as far as a picture shows it.
"""
