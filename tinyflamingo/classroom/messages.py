"""Values as JSON, between the process that marks and the process that runs a student's code.

Serves `grade.py` and `worker.py`. JSON, because what comes from a student's process is not to be trusted: reading it
makes arrays of numbers, lists, dicts and texts, and runs nothing. Not here: who sends what.

Arguments keep their identity, because each array, list and dict has a number. So a student's function can return the
array that it was given, and what it has changed in place is changed on the other side too (`Values.state`,
`Values.take_over`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

LARGEST = 32_000_000  # bytes of a message
NUMBERS = re.compile(r"[<>|=]?[biuf]\d{1,2}")


def send(stream: IO[bytes], message: dict) -> None:
    """Write one message: its length, then its bytes."""
    data = json.dumps(message).encode()
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> dict | None:
    """The next message; None at the end of the stream. A message that is too long or no JSON is a `ValueError`."""
    size = int.from_bytes(stream.read(8), "big")
    if size > LARGEST:
        raise ValueError(f"a message of {size} bytes")
    message = json.loads(stream.read(size) or b"null")
    if not isinstance(message, dict | None):
        raise ValueError("not a message")
    return message


class Values:
    """Writes and reads the values of one call. Both sides have one, with the same numbers for the same objects."""

    def __init__(self, ask: Callable | None = None):
        """ask: calls a function of the other side, by its number."""
        self.objects: dict[int, Any] = {}
        self.numbers: dict[int, int] = {}
        self.ask = ask

    def _add(self, value, number):
        self.objects[number], self.numbers[id(value)] = value, number
        return value

    def write(self, value: Any, give_number: bool) -> Any:
        """The value as JSON. give_number: the other side is to know it again."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self.numbers:
            return {"same": self.numbers[id(value)]}
        number = None
        if give_number and (isinstance(value, np.ndarray | list | dict) or callable(value)):
            number = len(self.objects)
            self._add(value, number)
        return {"number": number, **self._content(value, give_number)}

    def _content(self, value, give_number=False):
        if isinstance(value, np.ndarray | np.generic) and NUMBERS.fullmatch(value.dtype.str):
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
            return {kind: [value.dtype.str, list(value.shape), data]}
        if isinstance(value, dict):
            pairs = [[self.write(k, False), self.write(v, give_number)] for k, v in value.items()]
            return {"dict": pairs}
        if callable(value):
            return {"function": True} if give_number else {"type": type(value).__name__}
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):  # no generator: NumPy takes none
            kind = "tuple" if isinstance(value, tuple) else "list"
            return {kind: [self.write(item, give_number) for item in value]}
        return {"type": type(value).__name__}

    def read(self, written: Any) -> Any:
        """The value of its JSON. A type that cannot be sent becomes an empty object of a type of that name."""
        if not isinstance(written, dict):
            return written
        if "same" in written:
            return self.objects[written["same"]]
        value, number = self._value(written), written.get("number")
        return value if number is None else self._add(value, number)

    def _value(self, written):
        if "function" in written:
            number, ask = written["number"], self.ask
            if ask is None:
                raise ValueError("a function")
            return lambda *args: ask(number, args)
        for kind in ("array", "scalar"):
            if kind in written:
                dtype, shape, data = written[kind]
                if not NUMBERS.fullmatch(dtype):
                    raise ValueError("not an array of numbers")
                array = np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()
                return array if kind == "array" else array[()]
        if "dict" in written:
            return {self.read(key): self.read(value) for key, value in written["dict"]}
        for kind, build in (("list", list), ("tuple", tuple)):
            if kind in written:
                return build(self.read(item) for item in written[kind])
        return type(str(written["type"])[:40], (), {})()

    def state(self) -> list:
        """What is in every array, list and dict now."""
        return [[number, self._content(x)] for number, x in self.objects.items() if not callable(x)]

    def take_over(self, state: list) -> None:
        """Change the objects as the other side has changed them."""
        for number, content in state:
            own, new = self.objects[number], self._value(content)
            if isinstance(own, np.ndarray):
                if own.shape != np.shape(new) or own.dtype != new.dtype:
                    raise ValueError("an array has another shape")
                if own.tobytes() != new.tobytes():
                    own[...] = new
            elif isinstance(own, list):
                own[:] = new
            elif list(own) != list(new) or any(own[key] is not new[key] for key in own):
                own.clear()
                own.update(new)
