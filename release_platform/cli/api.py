"""`release api`: the operators' API."""

from typing import Annotated

import typer

from release_platform.cli.console import err

Port = Annotated[int, typer.Option("--port", help="Port of the operators' API.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on; beyond this machine put TLS in front.")]


def api(port: Port = 8001, host: Host = "127.0.0.1") -> None:
    """Serve the operators' API: promotion requests, approvals, rollbacks, drills, in the name of the caller's API key.

    It asks for the keys in the file of RELEASE_API_KEYS. Callers set RELEASE_API_URL and RELEASE_API_KEY_FILE, and use
    `release promote`, `approve`, `cancel`, `rollback`, `drill`, `status`, `history` and `who-served` as before.

    Examples:

        release api-key create ada --scope operator --expires 90d > ada.key

        release api --port 8001

        RELEASE_API_URL=http://127.0.0.1:8001 RELEASE_API_KEY_FILE=ada.key release promote churn --reason "better"
    """
    import logging

    import uvicorn

    from release_platform.adapters.key_ring import KeyRing
    from release_platform.api.app import create_app
    from release_platform.services import Services
    from release_platform.settings import Settings

    settings = Settings()
    settings.prepare()
    ring = KeyRing(settings.known_keys)
    app = create_app(Services(settings), ring)
    err.print(
        f"the operators' API answers on http://{host}:{port} (documentation: /docs)", highlight=False, soft_wrap=True
    )
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("release_platform").setLevel(logging.INFO)
    # No access log: it would repeat whole addresses, and what somebody wrongly wrote into one.
    uvicorn.run(
        app, host=host, port=port, access_log=False, server_header=False, timeout_graceful_shutdown=10, ws="none"
    )
