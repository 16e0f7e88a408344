"""Mutations of files, and what a reader may do with them: read or refuse them, in little time and memory."""

import random
import resource
import time

from icdm.errors import UserError

SECONDS, KIBIBYTES = 5, 2**20  # most processor time and memory that one input may take
BYTES = [
    b"\0",
    b"\xff",
    b"-1",
    b"0",
    b"1e39",
    b"nan",
    b"1e308",
    b"9" * 19,
    b"9" * 400,
    b'"',
    b",",
    b";",
    b"\n",
    b"\r",
    b" ",
]


def mutated(content: bytes, others: list[bytes], seed: int) -> bytes:
    """The content after one to four random changes of its bytes.

    Args:
      others: contents from which pieces are taken.
    """
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(content) + 1)
        stop = min(len(content), start + rng.choice((1, 1, 2, 4, 16, 200)))
        before, piece, after = content[:start], content[start:stop], content[stop:]
        other = rng.choice(others)
        place = rng.randrange(len(other) + 1)
        content = rng.choice(
            (
                lambda: before + bytes(byte ^ (1 << rng.randrange(8)) for byte in piece) + after,
                lambda: before + rng.randbytes(len(piece)) + after,
                lambda: before + rng.choice(BYTES) + after,
                lambda: before + rng.choice(BYTES) + piece + after,
                lambda: before + after,
                lambda: before + piece + piece + after,
                lambda: before + other[place : place + rng.choice((1, 8, 64))] + after,
                lambda: before if rng.random() < 0.3 else before + piece * 2 + after,
            )
        )()
    return content


def reads_or_refuses(read, *arguments):
    """Calls a reader: it may raise nothing but a UserError of one line, and take no more than SECONDS and KIBIBYTES.

    Returns whether the input was read.
    """
    began, held = time.process_time(), _most_memory()
    try:
        read(*arguments)
        done = True
    except UserError as error:
        assert str(error) and len(str(error)) < 2000
        done = False
    assert time.process_time() - began < SECONDS
    assert _most_memory() - held < KIBIBYTES
    return done


def _most_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
