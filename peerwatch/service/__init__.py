"""The service: an HTTP API, a live page and metrics beside a run. Only `serve` and `run --serve` import it."""
