"""One question to a D-Bus service of this machine, over jeepney. Owns the call and its patience; decides nothing."""

import os
from contextlib import closing
from typing import Any

_ANSWER_TIMEOUT_S = 1.0
_PROPERTIES = "org.freedesktop.DBus.Properties"


class NotHere(Exception):
    """This service does not exist on this machine."""


def property_of(bus: str, path: str, name: str, interface: str, prop: str) -> Any:
    """The value of a service's property; raises NotHere, or whatever jeepney raises."""
    return call(bus, path, name, _PROPERTIES, "Get", "ss", (interface, prop))[0][1]


def call(
    bus: str, path: str, name: str, interface: str, method: str, *arguments: Any
) -> tuple[Any, ...]:
    """What a method answers; `arguments` are a signature and a body. Raises as `property_of`."""
    from jeepney import DBusAddress, MessageType, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    if bus == "SESSION" and "DBUS_SESSION_BUS_ADDRESS" not in os.environ:
        raise NotHere("no session bus")
    with closing(open_dbus_connection(bus)) as connection:
        address = DBusAddress(path, bus_name=name, interface=interface)
        message = new_method_call(address, method, *arguments)
        answer = connection.send_and_get_reply(message, timeout=_ANSWER_TIMEOUT_S)
    if answer.header.message_type is not MessageType.method_return:
        raise NotHere(f"{name} does not answer {method}")
    return tuple(answer.body)
