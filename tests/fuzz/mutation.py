"""Mutation that keeps an input interesting: an ELF file stays one, a text keeps its words."""

import random
import struct
from collections.abc import Callable, Sequence

Mutator = Callable[[bytes, random.Random], bytes]

_EDGES = (0, 1, 2, 7, 8, 16, 0xFF, 0x100, 0xFFF, 0x1000, 0x7FFF, 0xFFFF, 0x10000, 1 << 20, 0x7FFFFFFF)
_WIDE_EDGES = (*_EDGES, (1 << 31), (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_TAGS = (0, 1, 5, 10, 14, 15, 29, 4, 6, 7, 23, 25, 0x6FFFFEF5, 0x6FFFFFF0, *range(0x6FFFFFFB, 0x70000000))
_KINDS = (0, 1, 2, 3, 4, 6, 7, 8, 0x6474E550, 0x6474E551, 0x6474E552, 0x6474E553)
LONGEST = 1 << 16


def noise(data: bytes, rng: random.Random) -> bytes:
    """Change, add or take away a few bytes anywhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        way = rng.randrange(5)
        if way == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(out):
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif way == 2:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8)))
        elif way == 3:
            del out[at : at + rng.choice((1, 1, 4, 32))]
        else:
            length = rng.choice((1, 4, 16, 64))
            out[at:at] = out[max(at - length, 0) : at]
    return bytes(out)


def words(*tokens: bytes) -> Mutator:
    """Make a mutator for a text format that is made of some words."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        for _ in range(rng.choice((1, 1, 2, 3))):
            way = rng.randrange(6)
            at = rng.randrange(len(data) + 1)
            if way <= 1:
                token = rng.choice(tokens)
                data = data[:at] + token * rng.choice((1, 1, 1, 2, 3, 40)) + data[at:]
            elif way == 2:
                token = rng.choice(tokens)
                start = data.find(token, at)
                if start >= 0:
                    data = data[:start] + rng.choice(tokens) + data[start + len(token) :]
            elif way == 3:
                lines = data.splitlines(keepends=True)
                if lines:
                    line = rng.choice(lines)
                    place = rng.randrange(len(lines) + 1)
                    lines[place:place] = [line] * rng.choice((1, 1, 3))
                    data = b"".join(lines)
            else:
                data = noise(data, rng)
        return data[:LONGEST]

    return mutate


def after(prefix: int, mutator: Mutator) -> Mutator:
    """Make a mutator for what comes after ``prefix`` bytes, which say what to do with it."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        head, body = bytearray(data[:prefix].ljust(prefix, b"\0")), data[prefix:]
        if rng.randrange(8) == 0:
            head[rng.randrange(prefix)] = rng.randrange(256)
        return bytes(head) + mutator(body, rng)

    return mutate


def elf(prefix: int = 0) -> Mutator:
    """Make a mutator for an ELF file that begins after ``prefix`` bytes which say what to do with it."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        head, body = bytearray(data[:prefix].ljust(prefix, b"\0")), bytearray(data[prefix:])
        if prefix and rng.randrange(8) == 0:
            head[rng.randrange(prefix)] = rng.randrange(256)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            if rng.randrange(5) == 0 or len(body) < 64:
                body = bytearray(noise(bytes(body), rng))
            else:
                _change_field(body, rng)
        body = body[:LONGEST]
        if rng.randrange(50):
            body[0:7] = b"\x7fELF" + (bytes(body[4:6]) if rng.randrange(20) else rng.randbytes(2)) + b"\1"
        return bytes(head + body)

    return mutate


def _change_field(body: bytearray, rng: random.Random) -> None:
    """Set one field of one structure to a number that means something to some other field."""
    wide, mark = body[4] != 1, ">" if body[5] == 2 else "<"
    form = mark + ("Q" if wide else "I")
    width = 8 if wide else 4
    phoff, shoff = (_number(body, at, form) for at in ((0x20, 0x28) if wide else (0x1C, 0x20)))
    counts = 0x38 if wide else 0x2C
    phnum, shnum = (_number(body, counts + at, mark + "H") for at in (0, 4))
    phsize, shsize = (56, 64) if wide else (32, 40)
    which = rng.randrange(12)
    if which == 0:
        at = rng.choice((16, 18, counts - 2, counts, counts + 2, counts + 4))
        _set(body, at, mark + "H", rng.choice(_EDGES))
    elif which == 1:
        _set(body, rng.choice((0x20, 0x28) if wide else (0x1C, 0x20)), form, _value(body, rng, wide))
    elif which <= 5 and phnum:
        at = phoff + rng.randrange(min(phnum, 64)) * phsize
        if rng.randrange(4) == 0:
            _set(body, at, mark + "I", rng.choice(_KINDS))
        else:
            _set(body, at + width * rng.randrange(phsize // width), form, _value(body, rng, wide))
    elif which <= 7 and shnum:
        at = shoff + rng.randrange(min(shnum, 64)) * shsize
        if rng.randrange(4) == 0:
            _set(body, at + 4, mark + "I", rng.choice(_KINDS))
        else:
            _set(body, at + 4 * rng.randrange(shsize // 4), form, _value(body, rng, wide))
    else:
        dynamic = _dynamic(body, mark, wide, phoff, phnum)
        if which <= 9 and dynamic:
            at = dynamic[0] + rng.randrange(max(dynamic[1] // (2 * width), 1)) * 2 * width
            if rng.randrange(3) == 0:
                _set(body, at, form, rng.choice(_TAGS))
            else:
                _set(body, at + width, form, _value(body, rng, wide))
        elif which == 10:
            at = rng.randrange(len(body)) // 4 * 4
            _set(body, at, mark + "I", rng.choice(_EDGES))
        else:
            # What was copied from elsewhere in the file often means something here, too.
            length = rng.choice((4, 8, 16, 56, 64))
            source, at = rng.randrange(len(body)), rng.randrange(len(body)) // 8 * 8
            piece = body[source : source + length]
            body[at : at + len(piece)] = piece


def _dynamic(body: bytearray, mark: str, wide: bool, phoff: int, phnum: int) -> tuple[int, int] | None:
    for index in range(min(phnum, 64)):
        at = phoff + index * (56 if wide else 32)
        if _number(body, at, mark + "I") == 2:
            form = mark + ("Q" if wide else "I")
            return _number(body, at + (8 if wide else 4), form), _number(
                body, at + (32 if wide else 16), form
            )
    return None


def _value(body: bytearray, rng: random.Random, wide: bool) -> int:
    way = rng.randrange(5)
    if way == 0:
        return rng.choice(_WIDE_EDGES)
    if way == 1:
        return rng.randrange(len(body) + 64)
    form = ">Q" if body[5] == 2 else "<Q"
    at = rng.randrange(min(len(body), 1024)) // 8 * 8
    known = _number(body, at, form if wide else form[0] + "I")
    return known if way == 2 else known + rng.choice((-0x1000, -16, -8, -1, 1, 8, 16, 0x1000, len(body)))


_SIGNATURES = (b"PK\1\2", b"PK\3\4", b"PK\5\6")


def archive(data: bytes, rng: random.Random) -> bytes:
    """Change a field of a header of a zip file (APPNOTE 4.3), or any bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        signature = rng.choice(_SIGNATURES)
        start = out.find(signature, rng.randrange(len(out) + 1))
        if rng.randrange(4) == 0 or start < 0:
            out = bytearray(noise(bytes(out), rng))
        elif rng.randrange(8) == 0:  # a member twice, or in another place
            piece = bytes(out[start : start + rng.choice((30, 46, 60, 100))])
            at = out.find(rng.choice(_SIGNATURES), rng.randrange(len(out)))
            out[max(at, 0) : max(at, 0)] = piece
        else:
            form = rng.choice(("<H", "<H", "<I"))
            _set(out, start + 4 + 2 * rng.randrange(21), form, rng.choice(_EDGES))
    return bytes(out[:LONGEST])


def _number(body: bytearray, at: int, form: str) -> int:
    size = struct.calcsize(form)
    return int(struct.unpack_from(form, body, at)[0]) if 0 <= at <= len(body) - size else 0


def _set(body: bytearray, at: int, form: str, value: int) -> None:
    size = struct.calcsize(form)
    if 0 <= at <= len(body) - size:
        struct.pack_into(form, body, at, value & ((1 << 8 * size) - 1))


def chosen(seeds: Sequence[bytes], mutate: Mutator, runs: int, seed: int) -> "list[bytes]":
    """Give ``runs`` inputs, the same ones every time: each seed, then what mutation makes of them."""
    rng = random.Random(seed)
    made = list(seeds)
    while len(made) < runs:
        made.append(mutate(rng.choice(made[-64:] + list(seeds)), rng))
    return made[: max(runs, len(seeds))]
