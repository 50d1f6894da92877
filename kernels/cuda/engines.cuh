// Three ways to multiply tiles of digits that lie in shared memory. All give the exact sums, so all
// give the same bits. Each keeps, for an operand of A digits and one of B digits, A + B - 1 sums an
// element: sum s holds the products of the digits i and j with i + j = s and has the weight 256^s.
//
// An engine has ROWS and COLS of its tile, the Store of its digits, `step` for a depth of
// TILE_DEPTH digits, and `finish`, which calls put(row, col, sum) for each element of the tile.
#pragma once
#include "tiles.cuh"

// The exact sum of an element, joined from the sums of its digits.
template <u32 SUMS> DEVICE i64 joined(const i32 *sums, u32 stride) {
    i64 sum = 0;
    for (u32 s = 0; s < SUMS; ++s) sum += static_cast<i64>(sums[s * stride]) << (8 * s);
    return sum;
}

// Products of four bytes at a time on ordinary cores: every GPU from sm_61 on. A thread makes 4 x
// 4.
template <u32 A, u32 B> struct DotEngine {
    static constexpr u32 ROWS = 64, COLS = 64, SUMS = A + B - 1;
    // An odd number of words, so that 32 rows start in 32 banks.
    using Store = ByteDigits<TILE_DEPTH + 4>;

    i32 sums[SUMS][4][4];

    __device__ __forceinline__ void clear() {
        for (u32 i = 0; i < SUMS * 16; ++i) (&sums[0][0][0])[i] = 0;
    }

    __device__ __forceinline__ void step(const u8 *a, const u8 *b) {
        const u32 first_row = threadIdx.x / 16, first_col = threadIdx.x % 16;
#pragma unroll 2
        for (u32 depth = 0; depth < TILE_DEPTH; depth += 4) {
            i32 x[A][4];
#pragma unroll
            for (u32 i = 0; i < A * 4; ++i)
                x[i / 4][i % 4] = word(a, i / 4 * ROWS + first_row + 16 * (i % 4), depth);
#pragma unroll
            for (u32 j = 0; j < 4; ++j)
#pragma unroll
                for (u32 digit = 0; digit < B; ++digit) {
                    const i32 y = word(b, digit * COLS + first_col + 16 * j, depth);
#pragma unroll
                    for (u32 i = 0; i < A * 4; ++i) {
                        i32 &sum = sums[i / 4 + digit][i % 4][j];
                        sum = __dp4a(x[i / 4][i % 4], y, sum);
                    }
                }
        }
    }

    template <typename Put> __device__ __forceinline__ void finish(u8 *, Put put) {
        const u32 first_row = threadIdx.x / 16, first_col = threadIdx.x % 16;
#pragma unroll
        for (u32 i = 0; i < 16; ++i)
            put(first_row + 16 * (i / 4), first_col + 16 * (i % 4),
                joined<SUMS>(&sums[0][i / 4][i % 4], 16));
    }

  private:
    DEVICE i32 word(const u8 *plane, u32 row, u32 depth) {
        return *reinterpret_cast<const i32 *>(plane + row * Store::PITCH + depth);
    }
};

#if defined(CONCORD_EMULATED) || ARCH >= 75

// int8 tensor cores: 8 warps, WARPS_DOWN of them over the rows; each makes 16 * M rows by 8 * N
// columns.
template <u32 A, u32 B, u32 WARPS_DOWN, u32 M, u32 N> struct Int8Engine {
    static constexpr u32 WARPS_ACROSS = TILE_THREADS / 32 / WARPS_DOWN;
    static constexpr u32 ROWS = WARPS_DOWN * M * 16, COLS = WARPS_ACROSS * N * 8, SUMS = A + B - 1;
    // 12 words: 8 rows of 4 words start in 32 banks.
    using Store = ByteDigits<TILE_DEPTH + 16>;

    i32 sums[SUMS][M][N][4];

    __device__ __forceinline__ void clear() {
        for (u32 i = 0; i < SUMS * M * N * 4; ++i) (&sums[0][0][0][0])[i] = 0;
    }

    __device__ __forceinline__ void step(const u8 *a, const u8 *b) {
        u32 x[A][M][4];
#pragma unroll
        for (u32 digit = 0; digit < A; ++digit)
#pragma unroll
            for (u32 m = 0; m < M; ++m) {
                const u32 row = digit * ROWS + first_row() + 16 * m;
                x[digit][m][0] = word(a, row, 0);
                x[digit][m][1] = word(a, row + 8, 0);
                x[digit][m][2] = word(a, row, 16);
                x[digit][m][3] = word(a, row + 8, 16);
            }
#pragma unroll
        for (u32 n = 0; n < N; ++n)
#pragma unroll
            for (u32 digit = 0; digit < B; ++digit) {
                const u32 col = digit * COLS + first_col() + 8 * n;
                const u32 y[2] = {word(b, col, 0), word(b, col, 16)};
#pragma unroll
                for (u32 i = 0; i < A * M; ++i)
                    mma(sums[i / M + digit][i % M][n], x[i / M][i % M], y);
            }
    }

    template <typename Put> __device__ __forceinline__ void finish(u8 *, Put put) {
#pragma unroll
        for (u32 m = 0; m < M; ++m)
#pragma unroll
            for (u32 n = 0; n < N; ++n)
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    const u32 col = first_col() + 8 * n - lane_of_warp() / 4;
                    put(first_row() + 16 * m + i / 2 * 8, col + lane_of_warp() % 4 * 2 + i % 2,
                        joined<SUMS>(&sums[0][m][n][i], M * N * 4));
                }
    }

  private:
    DEVICE u32 first_row() {
        return warp_of_block() / WARPS_ACROSS * M * 16 + lane_of_warp() / 4;
    }

    DEVICE u32 first_col() {
        return warp_of_block() % WARPS_ACROSS * N * 8 + lane_of_warp() / 4;
    }

    DEVICE u32 word(const u8 *plane, u32 row, u32 depth) {
        const u8 *at = plane + row * Store::PITCH + depth + lane_of_warp() % 4 * 4;
        return *reinterpret_cast<const u32 *>(at);
    }
};

#endif

#if defined(CONCORD_EMULATED) || ARCH >= 70

// f16 tensor cores: 8 warps, 4 of them over the rows; each makes 16 rows by 32 columns. The f32
// sums move to integers every DEPTH_MAX digits, before they could pass 2^24: a sum of two products
// of digits grows by at most 2 * 127 * 128 a step.
template <u32 A, u32 B> struct HalfEngine {
    static constexpr u32 ROWS = 64, COLS = 64, SUMS = A + B - 1, N = 2;
    static constexpr u32 DEPTH_MAX = 512;
    static_assert(DEPTH_MAX * 2 * 127 * 128 <= 1 << 24, "exact in f32");
    using Store = HalfDigits<TILE_DEPTH + 8>;

    FloatFragment recent[SUMS][N];
    i32 sums[SUMS][N][8];
    u32 depth;

    __device__ __forceinline__ void clear() {
        depth = 0;
#pragma unroll
        for (u32 i = 0; i < SUMS * N * 8; ++i) {
            recent[i / (N * 8)][i / 8 % N].value[i % 8] = 0.0f;
            sums[i / (N * 8)][i / 8 % N][i % 8] = 0;
        }
    }

    __device__ __forceinline__ void step(const u16 *a, const u16 *b) {
#pragma unroll
        for (u32 k = 0; k < TILE_DEPTH; k += 16) {
            HalfFragment x[A];
#pragma unroll
            for (u32 digit = 0; digit < A; ++digit)
                load_half_a(x[digit], a + (digit * ROWS + first_row()) * Store::PITCH + k,
                            Store::PITCH);
#pragma unroll
            for (u32 n = 0; n < N; ++n)
#pragma unroll
                for (u32 db = 0; db < B; ++db) {
                    HalfFragment y;
                    const u32 col = db * COLS + first_col() + 16 * n;
                    load_half_b(y, b + col * Store::PITCH + k, Store::PITCH);
#pragma unroll
                    for (u32 da = 0; da < A; ++da) mma(recent[da + db][n], x[da], y);
                }
        }
        depth += TILE_DEPTH;
        if (depth == DEPTH_MAX) flush();
    }

    template <typename Put> __device__ __forceinline__ void finish(u8 *shared, Put put) {
        flush();
        // Only the hardware knows the layout of fragments: storing them to shared memory gives rows
        // and columns.
        i32 *words = reinterpret_cast<i32 *>(shared) + warp_of_block() * SUMS * 256;
#pragma unroll
        for (u32 n = 0; n < N; ++n) {
#pragma unroll
            for (u32 s = 0; s < SUMS; ++s) store_words(words + 256 * s, sums[s][n], 16);
            for (u32 i = lane_of_warp(); i < 256; i += 32)
                put(first_row() + i / 16, first_col() + 16 * n + i % 16,
                    joined<SUMS>(words + i, 256));
            __syncwarp();
        }
    }

  private:
    __device__ __forceinline__ void flush() {
        depth = 0;
#pragma unroll
        for (u32 i = 0; i < SUMS * N * 8; ++i) {
            f32 &value = recent[i / (N * 8)][i / 8 % N].value[i % 8];
            sums[i / (N * 8)][i / 8 % N][i % 8] += __float2int_rn(value);
            value = 0.0f;
        }
    }

    DEVICE u32 first_row() { return warp_of_block() / 2 * 16; }
    DEVICE u32 first_col() { return warp_of_block() % 2 * 32; }
};

#endif
