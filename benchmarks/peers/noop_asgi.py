"""A limit: a bare ASGI application that reads the body and answers recorded bytes: `noop_asgi.py FOLDER PORT`."""

import sys
from pathlib import Path

import uvicorn

ANSWERS = {f"/{path.stem}": path.read_bytes() for path in Path(sys.argv[1]).glob("*.answer")}


async def app(scope, receive, send):
    """Answers the recorded bytes of a path."""
    while (await receive()).get("more_body"):
        pass
    body = ANSWERS[scope["path"]]
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port = int(sys.argv[2])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning")
