"""Tables as Parquet files that hold a digest of themselves: a flipped byte is found before anything is decoded.

The digest stands in the file's own metadata, so that file and digest are replaced as one, and other programs read the
file as any other. It is the SHA-256 of the file with zeros in the digest's place. A stranger can compute one, too:
what decodes to much more than the file's own size is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsoft.errors import InputError
from jaxsoft.fleet.memory import host_memory
from jaxsoft.runs.files import read_regular, tell_errors

if TYPE_CHECKING:
    import pyarrow as pa

MARK, DIGITS = b"jaxsoft's sha256 ", 64
"""The bytes before the digest, and its length."""

ROWS_AT_ONCE = 1_024
"""Rows that are decoded before what they hold is looked at."""

WORDS = 6
KINDS = {0, 1, 2, 4, 5, WORDS}
"""Parquet's numbers of the kinds of columns that are read: truth values, integers, floating-point numbers, words."""

REPEATED, UNCOMPRESSED = 2, 0

INTEGER, RECORD = 5, 12
"""Thrift's numbers of kinds."""

LONGEST = 1_000_000
"""Bytes of the longest description that is parsed, which takes 100 times as many; one of 1,000 columns has 240,000."""


def encode(table: pa.Table) -> bytes:
    """A table as a Parquet file. Without compression and dictionaries it is about as large as what it decodes to.

    Raises:
        InputError: pyarrow cannot be loaded.
    """
    pa = load()
    buffer = pa.BufferOutputStream()
    with pa.parquet.ParquetWriter(buffer, table.schema, compression="none", use_dictionary=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"digest": MARK.decode() + "0" * DIGITS})
    content = bytearray(buffer.getvalue())
    start = content.rindex(MARK) + len(MARK)
    content[start : start + DIGITS] = _digest(content, start)
    return bytes(content)


def read(file: Path) -> pa.Table:
    """Reads a file that `encode` wrote.

    Raises:
        InputError: it is missing, a link, cut short, changed, would take more memory than 10 times its size, or
            pyarrow cannot be loaded.
    """
    content = read_regular(file, host_memory() // 16)
    start = content.rfind(MARK) + len(MARK)
    if content[start : start + DIGITS] != _digest(content, start):
        raise InputError(f"{file} is cut short, was changed, or an earlier version's: it holds no digest of itself")
    pa = load()
    with tell_errors(file, "read: it is no table of this program's", Exception):
        words = _words(content)
        # a dictionary of one long word could stand for any number of them
        reader = pa.parquet.ParquetFile(pa.BufferReader(content), read_dictionary=words)
        schema = pa.schema([(f.name, pa.string() if f.name in words else f.type) for f in reader.schema_arrow])
        batches, room = [], len(content)
        for batch in reader.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            room -= sum(_length(batch.column(name)) for name in words)
            if room < 0:
                raise ValueError("its words are longer than the file")
            batches.append(batch.cast(schema))
        table = pa.Table.from_batches(batches, schema).combine_chunks()
        table.validate(full=True)
    return table


def load() -> Any:
    """The module pyarrow, with its `compute` and `parquet`.

    Raises:
        InputError: they cannot be loaded, for example because the address space is limited.
    """
    with tell_errors("pyarrow", "loaded", (ImportError, MemoryError, OSError)):
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    return pa


def _digest(content: bytes | bytearray, start: int) -> bytes:
    """SHA-256 of the content, with zeros in place of the digest at `start`."""
    whole = memoryview(content)
    digest = hashlib.sha256(whole[:start])
    digest.update(b"0" * DIGITS)
    digest.update(whole[start + DIGITS :])
    return digest.hexdigest().encode()


def _words(content: bytes) -> list[str]:
    """The names of a file's columns of words, once what it says of itself is found to fit its size.

    pyarrow reads such a description, too, but some of what may stand there ends the process.

    Raises:
        ValueError: it does not fit, or is none.
    """
    end = len(content) - 8
    size = int.from_bytes(content[end : end + 4], "little")
    if size > min(LONGEST, end):
        raise ValueError(f"its description is longer than the file, or than {LONGEST:,} bytes")
    described = _value(iter(content[end - size : end]), RECORD)
    (root, *leaves), groups = described[2], described[4]
    kinds, names = [leaf.get(1) for leaf in leaves], [leaf[4].decode() for leaf in leaves]
    is_flat = root.get(5) == len(leaves) and not any(5 in leaf or leaf.get(3) == REPEATED for leaf in leaves)
    if not is_flat or not {*kinds} <= KINDS or len({*names}) < len(names):
        raise ValueError("it has columns of other kinds")
    columns = [[column[3] for column in group[1]] for group in groups]
    if any([column[1] for column in group] != kinds for group in columns):
        raise ValueError("its rows have other columns than its schema")
    if any(column[4] != UNCOMPRESSED for group in columns for column in group):
        raise ValueError("it is compressed")
    sizes, rows = [column[7] for group in columns for column in group], [group[3] for group in groups]
    if min([*sizes, *rows], default=0) < 0 or sum(sizes) > len(content) or sum(rows) * len(kinds) > len(content):
        raise ValueError("it has more numbers than bytes")
    return [name for name, kind in zip(names, kinds, strict=True) if kind == WORDS]


def _value(stream: Iterator[int], kind: int) -> Any:
    """Reads a value in Thrift's compact protocol, in which Parquet describes files; of a record the fields by number.

    Raises:
        Exception: the stream ends before it (StopIteration, or what becomes of it), or it is none (ValueError).
    """
    match kind:
        case 1 | 2 | 3:
            return next(stream)
        case 4 | 5 | 6:
            number = _unsigned(stream)
            return number >> 1 ^ -(number & 1)
        case 7 | 8:
            return bytes(next(stream) for _ in range(8 if kind == 7 else _unsigned(stream)))
        case 9 | 10:
            head = next(stream)
            size = head >> 4 if head >> 4 < 15 else _unsigned(stream)
            return [_value(stream, head & 15) for _ in range(size)]
        case 12:
            fields, number = {}, 0
            while head := next(stream):
                number = number + (head >> 4) if head >> 4 else _value(stream, INTEGER)
                # truth stands in the head
                fields[number] = _value(stream, head & 15) if head & 15 > 2 else head & 15 == 1
            return fields
    raise ValueError("its description is none")


def _unsigned(stream: Iterator[int]) -> int:
    number = 0
    for shift in range(0, 70, 7):
        byte = next(stream)
        number |= (byte & 127) << shift
        if byte < 128:
            return number
    raise ValueError("its description has a number that is too long")


def _length(words: Any) -> int:
    """Bytes of a dictionary-encoded column of words when it is decoded."""
    compute = load().compute
    return compute.sum(compute.binary_length(words.dictionary).take(words.indices)).as_py() or 0
