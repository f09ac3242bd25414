"""A message bus of its own, with stand-ins for the services of a desktop."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def session_bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A message bus of its own, with stand-ins for the services that are asked."""
    if shutil.which("dbus-daemon") is None:
        pytest.skip("dbus-daemon is not installed")
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--print-address=1"], stdout=subprocess.PIPE
    )
    assert daemon.stdout
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", daemon.stdout.readline().decode().strip())
    yield
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()


def answer_on_the_bus(
    name: str, answers: dict[str, tuple[str, Any]], ask: Any, heard: list[Any] | None = None
) -> Any:
    """Serve `answers` by member or property under `name` while `ask` runs; what was asked goes to `heard`."""
    from jeepney import MessageType, new_method_return
    from jeepney.io.blocking import open_dbus_connection

    connection = open_dbus_connection("SESSION")
    connection.send_and_get_reply(_request_name(name))
    ready = threading.Event()

    def serve() -> None:
        ready.set()
        while True:
            try:
                message = connection.receive()
            except (OSError, ConnectionError, EOFError):
                return
            if message.header.message_type is not MessageType.method_call:
                continue
            member = next(value for key, value in message.header.fields.items() if key == 3)
            if member == "Stop":
                return
            if heard is not None:
                heard.append(message.body)
            key = message.body[1] if member == "Get" else member
            form, value = answers[key]
            body = ("v", ((form, value),)) if member == "Get" else (form, (value,))
            connection.send(new_method_return(message, *body))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait(5)
    try:
        return ask()
    finally:
        _stop(name)
        thread.join(5)
        connection.close()


def _request_name(name: str) -> Any:
    from jeepney import message_bus

    return message_bus.RequestName(name)


def _stop(name: str) -> None:
    from jeepney import DBusAddress, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    with open_dbus_connection("SESSION") as other:
        other.send(new_method_call(DBusAddress("/", name, "test.Stop"), "Stop"))
        # a round trip to the bus: the message before it has been routed
        other.send_and_get_reply(_request_name("test.done"))
