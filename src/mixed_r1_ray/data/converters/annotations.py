"""Reads JSON annotation files. What is wrong with a file is said with its name and place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mixed_r1_ray.errors import UserError

CHUNK = 4 * 2**20  # characters


def read_json(path: Path):
    """A whole JSON file. Raises UserError where it is cut, not JSON or not UTF-8."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise UserError(f"{path}: is not whole JSON in UTF-8 ({error}); fetch the file again") from error


def read_list(path: Path) -> list:
    """A JSON file that holds a list. Raises UserError."""
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f"{path}: holds a {type(content).__name__} where a list of rows was expected")
    return content


def stream_list(path: Path, key: str) -> Iterator[dict]:
    """The objects of the list under `key`, one by one: files may exceed the memory. Raises UserError."""
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8") as file:
        try:
            buffer = _until_list(file, key)
            if buffer is None:
                raise UserError(f"{path}: holds no list {key!r}")
            position, more = 0, True
            while True:
                while position < len(buffer) and buffer[position] in " \t\r\n,":
                    position += 1
                if buffer[position : position + 1] == "]":
                    return
                try:
                    value, position = decoder.raw_decode(buffer, position)
                    yield value
                except json.JSONDecodeError as error:
                    chunk = file.read(CHUNK) if more else ""
                    if not chunk:
                        raise UserError(
                            f"{path}: ends in the middle, or is not JSON ({error.msg})"
                        ) from error
                    buffer, position = buffer[position:] + chunk, 0
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8 ({error})") from error


def _until_list(file, key: str) -> str | None:
    """What of the file follows the bracket that opens the list under `key`; None where it does not come."""
    buffer = ""
    while chunk := file.read(CHUNK):
        buffer += chunk
        start = buffer.find(f'"{key}"')
        bracket = buffer.find("[", start) if start >= 0 else -1
        if bracket >= 0:
            return buffer[bracket + 1 :]
    return None


def json_lines(path: Path) -> Iterator[tuple[int, dict | str]]:
    """(line number from 0, object) of each line that is not blank; a text says what is wrong with it."""
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig" if number == 0 else "utf-8"))
            except UnicodeDecodeError:
                yield number, "is not UTF-8"
            except ValueError:
                yield number, "is not JSON"
            else:
                yield number, value if isinstance(value, dict) else "is no JSON object"
