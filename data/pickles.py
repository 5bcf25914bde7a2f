"""Reads the pickles of the official CIFAR archives without unpickling: nothing that a file names is called.

A pickle is a program for a stack machine. This one knows the instructions that Python 2 wrote for dictionaries, lists,
numbers, strings and NumPy arrays of bytes; where the program would call something, only arrays are made, from their
bytes, and everything else is refused.
"""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ARRAY = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}
_KNOWN = {*_ARRAY, ("numpy", "ndarray"), ("numpy", "dtype")}


class _Array:
    """An array whose content is not known yet."""

    content: NDArray[np.uint8] | None = None


class _Type:
    """A type of array elements."""

    def __init__(self, name: object) -> None:
        self.name = name


def read(content: bytes) -> Any:
    """The value of a pickle: text as bytes, arrays of bytes as arrays.

    Raises:
        ValueError: it holds something else, or is damaged.
    """
    try:
        return _run(content)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        begin = marks.pop()
        found = stack[begin:]
        del stack[begin:]
        return found

    for opcode, argument, _ in pickletools.genops(content):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "SHORT_BINSTRING" | "BINSTRING" | "BINUNICODE":
                stack.append(argument.encode("latin-1"))
            case "SHORT_BINBYTES" | "BINBYTES":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = since_mark()
                stack[-1].extend(values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                values = since_mark()
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                values = stack[-size:]
                del stack[-size:]
                stack.append(tuple(values))
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                if (module, name) not in _KNOWN:
                    raise ValueError(f"it would call `{module}.{name}`, which no file of images needs")
                stack.append((module, name))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                if called in _ARRAY:
                    stack.append(_Array())
                elif called == ("numpy", "dtype"):
                    stack.append(_Type(arguments[0]))
                else:
                    raise ValueError(f"it would call {called!r}, which no file of images needs")
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], _Array):
                    stack[-1].content = _content(state)
                elif not isinstance(stack[-1], _Type):
                    raise ValueError("it sets the state of something that is no array")
            case "STOP":
                return _resolved(stack.pop())
            case _:
                raise ValueError(f"it has the instruction {opcode.name}, which no file of images needs")
    raise ValueError("it has no end")


def _content(state: Any) -> NDArray[np.uint8]:
    _, shape, kind, in_columns, data = state
    if not isinstance(kind, _Type) or kind.name != b"u1" or in_columns or not isinstance(data, bytes):
        raise ValueError("it has an array of something else than bytes")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _resolved(value: Any) -> Any:
    """A dictionary with its arrays in place."""
    if not isinstance(value, dict):
        raise ValueError("it holds no dictionary")
    return {key: one.content if isinstance(one, _Array) else one for key, one in value.items()}
