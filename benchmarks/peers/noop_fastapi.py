"""A limit: a FastAPI route that reads the body and answers recorded bytes: `noop_fastapi.py FOLDER PORT`."""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

ANSWERS = {path.stem: path.read_bytes() for path in Path(sys.argv[1]).glob("*.answer")}
app = FastAPI()


@app.post("/{what}")
async def answer(what: str, request: Request) -> Response:
    """Answers the recorded bytes."""
    await request.body()
    return Response(ANSWERS[what], media_type="application/json")


if __name__ == "__main__":
    port = int(sys.argv[2])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning")
