"""How a server is configured: environment variables with the prefix `SERVING_`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from release_platform.domain.api_keys import rate_of


class Settings(BaseSettings):
    """The settings of one server.

    Attributes:
        tracking_uri: Where the registry is; `MLFLOW_TRACKING_URI` is read when `SERVING_TRACKING_URI` is not set.
        models: Names of the models to serve, in the environment separated by commas; empty for every model that has a
            version in Production.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        workers: How many processes answer on the port.
        max_connections: Most connections that one worker holds at the same time.
        max_head_bytes: Most bytes that path, query and headers of one request may have.
        header_timeout_s: Seconds within which a request's head must have arrived.
        keep_alive_s: Seconds that a connection may rest between two requests.
        send_timeout_s: Seconds within which a client must go on reading its answer.
        refresh_s: Seconds between two looks at the registry; each wait is between 0.8 and 1.2 times this.
        startup_patience_s: Seconds that the registry is waited for before the verified copies on disk are served.
        retry_max_s: Longest wait before a version that was refused is tried again.
        key_folder: The folder whose `trusted/*.pem` are the public keys that versions and moves must be signed by.
        api_keys: The file, as `release api-key` writes it, of the API keys that callers must show; empty for none, so
            that everybody who reaches the server may predict and read.
        rate_limit: Most requests per minute with one API key that has no limit of its own, of one process, in the
            environment like `600/min`; empty for no limit.
        cache_dir: Where verified copies are kept. Servers on one machine may share it.
        cache_keep: How many copies of each model that are no longer served are kept, for a fast way back.
        max_rows: Most rows that one request may hold.
        extra_columns: `refuse` or `ignore` columns that a model does not take.
        unknown_categories: `accept` or `refuse` categories that the model's contract does not list (`allowed`).
        max_body_bytes: Most bytes that the body of one request may have.
        body_timeout_s: Seconds within which a request's body must have arrived.
        predict_timeout_s: Seconds that a request may wait for its turn and its prediction.
        recent_predictions: How many predictions of one process are remembered, over restarts too, for outcomes that
            are told later; 48 bytes each, in a file of `cache_dir`. 0: none.
        sample_share: The share of the answered requests that is kept for an hour, rows and answers, for a collector.
        busy_poll_us: Microseconds that a worker stays awake for the next request of a client whose last two came at
            once after each other; 0: it sleeps between all requests.
        fast_path: Whether predictions skip FastAPI's detour; the answers are the same.
        n_threads: How many predictions are computed at the same time.
        max_waiting: How many requests may wait for one of these threads; those beyond are told to come again.
        drain_s: Seconds between SIGTERM and the end of listening, for load balancers to see `/readyz` say no.
        shutdown_s: Seconds that requests under way are given to end after that.
        log_requests: Whether each request is logged; otherwise only those that the server failed.
        log_format: `text` for people, or `json`.
        log_level: Lowest level that is logged.
    """

    model_config = SettingsConfigDict(env_prefix="SERVING_", extra="ignore", populate_by_name=True, frozen=True)

    tracking_uri: str = Field(
        default="", validation_alias=AliasChoices("SERVING_TRACKING_URI", "MLFLOW_TRACKING_URI", "tracking_uri")
    )
    models: Annotated[tuple[str, ...], NoDecode] = ()
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1)
    max_connections: int = Field(default=4096, ge=1)
    max_head_bytes: int = Field(default=64 * 1024, ge=1024)
    header_timeout_s: float = Field(default=10.0, gt=0)
    keep_alive_s: float = Field(default=10.0, gt=0)
    send_timeout_s: float = Field(default=20.0, gt=0)
    refresh_s: float = Field(default=2.0, gt=0)
    startup_patience_s: float = Field(default=5.0, ge=0)
    retry_max_s: float = Field(default=60.0, gt=0)
    key_folder: Path = Path(".release/keys")
    api_keys: Path | None = None
    rate_limit: int | None = None
    cache_dir: Path = Path(".release/serving")
    cache_keep: int = Field(default=4, ge=0)
    max_rows: int = Field(default=10_000, ge=1)
    extra_columns: Literal["refuse", "ignore"] = "refuse"
    unknown_categories: Literal["accept", "refuse"] = "accept"
    max_body_bytes: int = Field(default=16 * 1024**2, ge=1)
    body_timeout_s: float = Field(default=10.0, gt=0)
    predict_timeout_s: float = Field(default=30.0, gt=0)
    recent_predictions: int = Field(default=300_000, ge=0, le=100_000_000)
    sample_share: float = Field(default=0.0, ge=0, le=1)
    busy_poll_us: int = Field(default=100, ge=0, le=10_000)
    fast_path: bool = True
    n_threads: int = Field(default_factory=lambda: max(2, os.cpu_count() or 2), ge=1)
    max_waiting: int = Field(default=256, ge=0)
    drain_s: float = Field(default=0.0, ge=0)
    shutdown_s: int = Field(default=15, ge=0)
    log_requests: bool = False
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))

    @field_validator("api_keys", mode="before")
    @classmethod
    def _file(cls, value: Any) -> Any:
        return None if value == "" else value  # the empty path would be the folder

    @field_validator("rate_limit", mode="before")
    @classmethod
    def _rate(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return rate_of(value) if value else None

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value
