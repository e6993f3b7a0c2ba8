"""The servers behind a name: one address for each, and a name that cannot be looked up is told as it is."""

import socket
from collections.abc import Callable

import pytest

from release_platform.adapters.addresses import each_server, lookup

Asked = list[tuple[str, int | None]]


def named(*addresses: str) -> tuple[Callable[[str, int | None], list[str]], Asked]:
    asked: Asked = []

    def look_up(host: str, port: int | None) -> list[str]:
        asked.append((host, port))
        if not addresses:
            raise OSError("no such name")
        return list(addresses)

    return look_up, asked


def test_a_name_stands_for_every_server_behind_it() -> None:
    look_up, asked = named("10.0.0.1", "fd00::2")
    found = each_server(["dns+http://serving-pods:8000/behind", "http://10.0.0.1:8000/behind"], look_up)
    assert found == ("http://10.0.0.1:8000/behind", "http://[fd00::2]:8000/behind")
    assert asked == [("serving-pods", 8000)]


def test_other_addresses_are_left_alone() -> None:
    look_up, asked = named("10.0.0.1")
    assert each_server(["http://serving-1:8000", "https://serving-2"], look_up) == (
        "http://serving-1:8000",
        "https://serving-2",
    )
    assert asked == []


def test_a_port_is_not_made_up() -> None:
    look_up, _ = named("10.0.0.1")
    assert each_server(["dns+https://serving"], look_up) == ("https://10.0.0.1",)


def test_a_name_that_nobody_knows_stays_to_be_complained_of() -> None:
    look_up, _ = named()
    assert each_server(["dns+http://serving-pods:8000"], look_up) == ("http://serving-pods:8000",)


def test_names_are_looked_up_by_the_system() -> None:
    assert "127.0.0.1" in lookup("localhost", 80)
    with pytest.raises(socket.gaierror):
        lookup("no-such-name.invalid", 80)
