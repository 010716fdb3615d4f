"""The source of the chart's Grafana dashboards, by Grafana's own builders: `make dashboards` writes the JSON."""
