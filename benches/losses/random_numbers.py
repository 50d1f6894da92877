"""The random numbers of training, written again from section 6 of NUMERICS.md, so that torch can
drop the same elements and add the same noise."""

import blake3
import numpy

TENSOR = "concord 1 random numbers of training: tensor"
DOCUMENT = "concord 1 random numbers of training: document"
LANES = 16


def first_word(context, data):
    digest = blake3.blake3(data, derive_key_context=context).digest()
    return int.from_bytes(digest[:8], "little")


def tensor_key(seed, step, name):
    numbers = seed.to_bytes(8, "little") + step.to_bytes(4, "little")
    return first_word(TENSOR, numbers + name.encode())


def document_stream(ids):
    return first_word(DOCUMENT, numpy.asarray(ids, dtype="<u4").tobytes())


def philox(key, stream, counters):
    """Four words of 32 bits for each counter: [counters, 4]."""
    mask = numpy.uint64(0xFFFFFFFF)
    counters = counters.astype(numpy.uint64)
    low, high = counters & mask, counters >> numpy.uint64(32)
    words = [low, high] + [numpy.full_like(low, h) for h in (stream & 0xFFFFFFFF, stream >> 32)]
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a = numpy.uint64(0xD2511F53) * words[0]
        b = numpy.uint64(0xCD9E8D57) * words[2]
        shift = numpy.uint64(32)
        words = [(b >> shift) ^ words[1] ^ numpy.uint64(keys[0]), b & mask,
                 (a >> shift) ^ words[3] ^ numpy.uint64(keys[1]), a & mask]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return numpy.stack(words, -1)


def drawn(key, ids, columns, of_group):
    """The word of each column of each token of a document, and the place of the column in the
    `of_group` columns that share four words."""
    column = numpy.arange(columns)
    width = LANES * of_group
    group = column // width * LANES + column % LANES
    place = column % width // LANES
    counters = (numpy.arange(len(ids))[:, None] << 32) + group[None]
    words = philox(key, document_stream(ids), counters)
    index = numpy.broadcast_to(place * 4 // of_group, words.shape[:2])
    return numpy.take_along_axis(words, index[..., None], -1)[..., 0], place


def kept(key, ids, columns, threshold):
    """Which inputs of a low-rank update stay: [tokens, columns]."""
    word, place = drawn(key, ids, columns, 8)
    half = (word >> (16 * (place % 2)).astype(numpy.uint64)) & numpy.uint64(0xFFFF)
    return half >= threshold


def noise(key, ids, columns):
    """Multiples of 2^-23 in [-1, 1): [tokens, columns]."""
    word, _ = drawn(key, ids, columns, 4)
    return (word >> numpy.uint64(8)).astype(numpy.float64) / 8_388_608 - 1
