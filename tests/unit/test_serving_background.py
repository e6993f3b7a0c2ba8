"""What goes on beside the requests ends neither by its own failures nor by those of others."""

import asyncio
import logging

import pytest

from serving.background import call_in_daemon, keep_going


def test_what_fails_begins_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    begun = 0

    async def fail() -> None:
        nonlocal begun
        begun += 1
        raise OSError("too many open files")

    async def watch() -> None:
        going = asyncio.create_task(keep_going(fail, again_s=0.001))
        while begun < 3:
            await asyncio.sleep(0.001)
        going.cancel()
        await asyncio.wait([going])
        assert going.cancelled()

    with caplog.at_level(logging.ERROR, logger="serving.background"):
        asyncio.run(asyncio.wait_for(watch(), 30))
    assert "too many open files" in caplog.text


def test_the_error_of_a_blocking_call_is_raised_where_it_is_awaited() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(call_in_daemon(lambda: 1 // 0))
