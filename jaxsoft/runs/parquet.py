"""Tables as Parquet files that hold a digest of themselves: a flipped byte is found before anything is decoded.

The digest stands in the file's own metadata, so that file and digest are replaced as one, and other programs read the
file as any other. It is the SHA-256 of the file with zeros in the digest's place. A stranger can compute one, too:
what decodes to much more than the file's own size is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxsoft.errors import InputError
from jaxsoft.fleet.memory import host_memory
from jaxsoft.runs.files import read_regular

if TYPE_CHECKING:
    import pyarrow as pa

MARK, DIGITS = b"jaxsoft's sha256 ", 64
"""What comes before the digest, and its length."""

ROWS_AT_ONCE = 1_024
"""Rows that are decoded before what they hold is looked at."""

WORDS = 6
KINDS = {0, 1, 2, 4, 5, WORDS}
"""Parquet's numbers of the kinds of columns that are read: truth values, integers, floating-point numbers, words."""

REPEATED, UNCOMPRESSED = 2, 0

LONGEST = 1_000_000
"""Bytes of the longest description that is parsed, which takes 100 times as many; one of 1,000 columns has 240,000."""


def to_bytes(table: pa.Table) -> bytes:
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
    """Reads a file that `to_bytes` wrote.

    Raises:
        InputError: it is missing, a link, cut short, changed, would take more memory than 10 times its size, or
            pyarrow cannot be loaded.
    """
    content = read_regular(file, host_memory() // 16, follow=False)
    start = content.rfind(MARK) + len(MARK)
    if content[start : start + DIGITS] != _digest(content, start):
        raise InputError(f"{file} is cut short, was changed, or an earlier version's: it holds no digest of itself")
    pa = load()
    try:
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
    except Exception as error:  # pyarrow raises many kinds, one per way of being broken
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise InputError(f"{file} is no table of this program's ({reason})") from None
    return table


def load() -> Any:
    """The module pyarrow, with its `compute` and `parquet`.

    Raises:
        InputError: they cannot be loaded, for example because the address space is limited.
    """
    try:
        import pyarrow as pa
        import pyarrow.compute
        import pyarrow.parquet
    except (ImportError, MemoryError, OSError) as error:
        raise InputError(f"pyarrow cannot be loaded ({str(error).splitlines()[0][:120]})") from None
    return pa


def _digest(content: bytes | bytearray, start: int) -> bytes:
    """Of the content but for the digest that stands at `start`."""
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
    if size > LONGEST:
        raise ValueError(f"its description is longer than {LONGEST:,} bytes")
    start = end - size
    if start < 0:
        raise ValueError("its description is longer than the file")
    described = _Thrift(content[start:end]).record()
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


class _Thrift:
    """Reads records in Thrift's compact protocol, in which Parquet describes files: fields by their numbers."""

    def __init__(self, content: bytes) -> None:
        self._bytes = iter(content)

    def record(self) -> dict[int, Any]:
        """One record.

        Raises:
            ValueError: it is none.
        """
        fields, number = {}, 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._text(8)
            case 8:
                return self._text(self._unsigned())
            case 9 | 10:
                head = self._byte()
                size = head >> 4 if head >> 4 < 15 else self._unsigned()
                return [self._value(head & 15) for _ in range(size)]
            case 12:
                return self.record()
        raise ValueError("its description is none")

    def _byte(self) -> int:
        byte = next(self._bytes, None)
        if byte is None:
            raise ValueError("its description is cut short")
        return byte

    def _text(self, length: int) -> bytes:
        return bytes(self._byte() for _ in range(length))

    def _unsigned(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("its description has a number that is too long")

    def _integer(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)


def _length(words: Any) -> int:
    """Bytes of a dictionary-encoded column of words when it is decoded."""
    compute = load().compute
    return compute.sum(compute.binary_length(words.dictionary).take(words.indices)).as_py() or 0
