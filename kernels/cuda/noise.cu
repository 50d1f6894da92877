// Random numbers of training: elements that are dropped, and noise. Twin of
// kernels/src/cpu/noise.rs.
#include "base.cuh"
#include "spread.cuh"

// Groups of columns of a tile.
#define LANES 16
// Columns of a group.
#define DROPPED 8
#define NOISE 4

struct Words {
    u32 of[4];
};

// The words of Philox 4x32-10 under `key`, in the stream of the token's document, at the counter
// position * 2^32 + group. `token` is position, low and high half of the document.
DEVICE Words words_of(u64 key, const u32 *token, u32 group) {
    u32 low = static_cast<u32>(key), high = static_cast<u32>(key >> 32);
    Words words = {{group, token[0], token[1], token[2]}};
#pragma unroll
    for (u32 round = 0; round < 10; round++) {
        const u32 a = words.of[0], b = words.of[2];
        words.of[0] = __umulhi(0xcd9e8d57u, b) ^ words.of[1] ^ low;
        words.of[1] = 0xcd9e8d57u * b;
        words.of[2] = __umulhi(0xd2511f53u, a) ^ words.of[3] ^ high;
        words.of[3] = 0xd2511f53u * a;
        low += 0x9e3779b9u;
        high += 0xbb67ae85u;
    }
    return words;
}

// The first column of a group of `columns` columns, which are LANES apart.
DEVICE u32 first_column(u32 group, u32 columns) {
    return group / LANES * (LANES * columns) + group % LANES;
}

// Puts 0 for the dropped elements of x, rows of `cols`; row i belongs to token rows[i], or to token
// i where these are null.
template <typename T>
DEVICE void drop(T *x, const u32 *tokens, const u32 *rows, u64 key, u32 threshold, u32 count,
                 u32 cols) {
    const u32 groups = div_ceil(cols, static_cast<u32>(LANES * DROPPED)) * LANES;
    for_each_in(count, groups, [&](u32 row, u32 group) {
        const u64 token = rows != nullptr ? rows[row] : row;
        const Words words = words_of(key, tokens + 3 * token, group);
        T *line = x + static_cast<u64>(row) * cols;
        const u32 first = first_column(group, DROPPED);
#pragma unroll
        for (u32 i = 0; i < DROPPED; i++) {
            const u32 column = first + i * LANES;
            const u32 bits = words.of[i / 2] >> (16 * (i % 2)) & 0xffffu;
            if (column < cols && bits < threshold) line[column] = 0;
        }
    });
}

KERNEL(64) noise_drop_codes(i16 *q, const u32 *tokens, const u32 *rows, u64 key, u32 threshold,
                             u32 count, u32 cols) {
    drop(q, tokens, rows, key, threshold, count, cols);
}

KERNEL(64) noise_drop_values(f32 *x, const u32 *tokens, const u32 *rows, u64 key, u32 threshold,
                              u32 count, u32 cols) {
    drop(x, tokens, rows, key, threshold, count, cols);
}

// x [count, cols] += noise in [-reach, reach) of the token.
KERNEL(64) noise_add(f32 *x, const u32 *tokens, const f32 *reach, u64 key, u32 count,
                            u32 cols) {
    const u32 groups = div_ceil(cols, static_cast<u32>(LANES * NOISE)) * LANES;
    for_each_in(count, groups, [&](u32 row, u32 group) {
        const Words words = words_of(key, tokens + 3ull * row, group);
        f32 *line = x + static_cast<u64>(row) * cols;
        const u32 first = first_column(group, NOISE);
#pragma unroll
        for (u32 i = 0; i < NOISE; i++) {
            const u32 column = first + i * LANES;
            const f32 unit = rn::div(__uint2float_rn(words.of[i] >> 8), 8388608.0f);
            const f32 centred = rn::sub(unit, 1.0f);
            if (column < cols) line[column] = rn::fma(reach[row], centred, line[column]);
        }
    });
}
