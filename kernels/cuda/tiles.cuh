// How tiles of the operands of a product get into shared memory as planes of 8-bit digits. A code
// of 8 bits is its low digit.
#pragma once
#include "digits.cuh"
#include "mma.cuh"

// Threads of a block that makes a tile.
#define TILE_THREADS 256
// Steps along the summed axis: the depth of a tile in shared memory.
#define TILE_DEPTH 32

// One side of a product: element (row, depth) stands at row * row_stride + depth * depth_stride.
struct Operand {
    const i16 *q;
    u64 row_stride;
    u64 depth_stride;
    u32 rows;
};

// How a tile is read: 8 codes at once along the depth, 4 along the rows, or one by one.
enum class Layout { AlongDepth, AlongRows, Scattered };

DEVICE Layout layout_of(const Operand &operand) {
    const u64 address = reinterpret_cast<u64>(operand.q);
    if (operand.depth_stride == 1 && (address | operand.row_stride * sizeof(i16)) % 16 == 0)
        return Layout::AlongDepth;
    if (operand.row_stride == 1 && (address | operand.depth_stride * sizeof(i16)) % 8 == 0)
        return Layout::AlongRows;
    return Layout::Scattered;
}

// The code as a 16-bit word; 0 beyond the rows and the depth.
DEVICE u32 code_at(const Operand &operand, u32 row, u32 depth, u32 depth_end) {
    if (row >= operand.rows || depth >= depth_end) return 0;
    const u64 at = row * operand.row_stride + depth * operand.depth_stride;
    return static_cast<u16>(operand.q[at]);
}

// Where four digits along the depth go: bytes, in rows of PITCH bytes.
template <u32 PITCH_BYTES> struct ByteDigits {
    using Digit = u8;
    static constexpr u32 PITCH = PITCH_BYTES;

    DEVICE void put(u8 *plane, u32 row, u32 depth, u32 digits) {
        *reinterpret_cast<u32 *>(plane + row * PITCH + depth) = digits;
    }
};

// The same as f16, in rows of PITCH halves.
template <u32 PITCH_HALVES> struct HalfDigits {
    using Digit = u16;
    static constexpr u32 PITCH = PITCH_HALVES;

    DEVICE void put(u16 *plane, u32 row, u32 depth, u32 digits) {
        u32 *to = reinterpret_cast<u32 *>(plane + row * PITCH + depth);
        for (u32 i = 0; i < 2; ++i) {
            const i32 first = static_cast<i8>(digits >> (16 * i));
            const i32 second = static_cast<i8>(digits >> (16 * i + 8));
            to[i] = half_of(first) | static_cast<u32>(half_of(second)) << 16;
        }
    }
};

// A tile of ROWS rows on its way from global to shared memory: a thread's part of it in registers,
// so that the loads of the next tile run while this one is multiplied.
template <u32 ROWS, u32 DIGITS, typename Store> struct Stage {
    using Digit = typename Store::Digit;
    // Digits of a plane of the tile.
    static constexpr u32 PLANE = ROWS * Store::PITCH;
    static constexpr u32 PIECES = (ROWS * TILE_DEPTH / 8 + TILE_THREADS - 1) / TILE_THREADS;

    u32 word[8];

    __device__ __forceinline__ void load(const Operand &from, Layout layout, u32 row, u32 depth,
                                        u32 depth_end) {
        if (layout == Layout::AlongRows) load_along_rows(from, row, depth, depth_end);
        else load_along_depth(from, layout, row, depth, depth_end);
    }

    __device__ __forceinline__ void store(Layout layout, Digit *planes) const {
        if (layout == Layout::AlongRows) {
            if (threadIdx.x < ROWS * 2) store_along_rows(planes);
            return;
        }
#pragma unroll
        for (u32 i = 0; i < PIECES; ++i) {
            const u32 piece = threadIdx.x + i * TILE_THREADS;
            if (piece < ROWS * 4) store_along_depth(planes, word + 4 * i, piece);
        }
    }

  private:
    // Piece p is 8 codes of row p / 4.
    __device__ __forceinline__ void load_along_depth(const Operand &from, Layout layout, u32 row0,
                                                     u32 depth0, u32 depth_end) {
#pragma unroll
        for (u32 i = 0; i < PIECES; ++i) {
            const u32 piece = threadIdx.x + i * TILE_THREADS;
            if (piece >= ROWS * 4) continue;
            const u32 row = row0 + piece / 4, depth = depth0 + piece % 4 * 8;
            u32 *to = word + 4 * i;
            if (layout == Layout::AlongDepth && row < from.rows && depth + 8 <= depth_end) {
                const i16 *at = from.q + row * from.row_stride + depth;
                const uint4 codes = *reinterpret_cast<const uint4 *>(at);
                to[0] = codes.x, to[1] = codes.y, to[2] = codes.z, to[3] = codes.w;
                continue;
            }
#pragma unroll
            for (u32 j = 0; j < 4; ++j) {
                const u32 first = code_at(from, row, depth + 2 * j, depth_end);
                to[j] = first | code_at(from, row, depth + 2 * j + 1, depth_end) << 16;
            }
        }
    }

    // Piece p is 4 codes of each of the rows from 4 * (p / 8) on: words 2 * d and 2 * d + 1 hold
    // those of depth d.
    __device__ __forceinline__ void load_along_rows(const Operand &from, u32 row0, u32 depth0,
                                                   u32 depth_end) {
        if (threadIdx.x >= ROWS * 2) return;
        const u32 row = row0 + threadIdx.x / 8 * 4;
#pragma unroll
        for (u32 d = 0; d < 4; ++d) {
            const u32 depth = depth0 + threadIdx.x % 8 * 4 + d;
            if (row + 4 <= from.rows && depth < depth_end) {
                const i16 *at = from.q + depth * from.depth_stride + row;
                const uint2 codes = *reinterpret_cast<const uint2 *>(at);
                word[2 * d] = codes.x, word[2 * d + 1] = codes.y;
                continue;
            }
#pragma unroll
            for (u32 j = 0; j < 2; ++j) {
                const u32 first = code_at(from, row + 2 * j, depth, depth_end);
                word[2 * d + j] = first | code_at(from, row + 2 * j + 1, depth, depth_end) << 16;
            }
        }
    }

    DEVICE void store_along_depth(Digit *planes, const u32 *codes, u32 piece) {
        const u32 row = piece / 4, depth = piece % 4 * 8;
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            const u32 first = codes[2 * i], second = codes[2 * i + 1];
            Store::put(planes, row, depth + 4 * i, low_digits(first, second));
            if (DIGITS == 2)
                Store::put(planes + PLANE, row, depth + 4 * i, high_digits(first, second));
        }
    }

    __device__ __forceinline__ void store_along_rows(Digit *planes) const {
        const u32 row = threadIdx.x / 8 * 4, depth = threadIdx.x % 8 * 4;
#pragma unroll
        for (u32 digit = 0; digit < DIGITS; ++digit) {
            u32 x[4];
#pragma unroll
            for (u32 d = 0; d < 4; ++d)
                x[d] = digit == 0 ? low_digits(word[2 * d], word[2 * d + 1])
                                  : high_digits(word[2 * d], word[2 * d + 1]);
            transpose_bytes(x);
#pragma unroll
            for (u32 r = 0; r < 4; ++r) Store::put(planes + digit * PLANE, row + r, depth, x[r]);
        }
    }
};
