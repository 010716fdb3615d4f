"""The kinds of workload that may serve a model: one file each, behind the one protocol in `kind`."""
