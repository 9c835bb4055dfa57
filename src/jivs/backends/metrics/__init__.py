"""Metrics for Prometheus, of one process or of several that are scraped as one."""
