// Exact integer products: y[m, n] = round_f32(2^(ea[m] + eb[n]) * sum_k qa[m, k] * qb[n, k]).
#include "coding.cuh"
#include "engines.cuh"

// With exponents of at most this magnitude no intermediate product leaves the normal range of f64.
#define PLAIN_EXPONENT 900

// rounded_product, on integers where the sum and the result allow it: f64 is slow on most GPUs.
DEVICE f32 rounded_sum(i64 sum, i32 ea, i32 eb) {
    const u64 magnitude = static_cast<u64>(sum < 0 ? -sum : sum);
    const i32 top = 63 - __clzll(static_cast<i64>(magnitude));
    const i32 exponent = ea + eb;
    const bool is_plain = ea >= -PLAIN_EXPONENT && ea <= PLAIN_EXPONENT && eb >= -PLAIN_EXPONENT &&
                          eb <= PLAIN_EXPONENT;
    if (!is_plain || top < 0 || top > 52 || top + exponent < -126 || top + exponent > 126)
        return rounded_product(sum, ea, eb);
    // At most 32 bits are kept; the last one is set if any lower bit was, so the conversion rounds
    // right.
    const i32 shift = greatest(top - 31, 0);
    const u64 lost = magnitude & ((1ull << shift) - 1);
    const u32 kept = static_cast<u32>(magnitude >> shift) | (lost != 0 ? 1u : 0u);
    const f32 rounded = scale_by_pow2(__uint2float_rn(kept), exponent + shift);
    return sum < 0 ? -rounded : rounded;
}

// How many left operands of the tree a product is added to at once: enough for a tree over 8 atoms.
#define LEFT_SIDES 3

// Where the elements of a product go.
struct Sink {
    const i32 *a_exp;
    const i32 *b_exp;
    f32 *out;
    // Left operands of the nodes above the product, which is the last leaf of a tree: those that
    // are not null are added to it one after the other, from the lowest node up. One may be `out`.
    const f32 *left[LEFT_SIDES];
    // The exact sums are added here instead, where it is not null.
    u64 *sums;
    u32 rows;
    u32 cols;

    __device__ __forceinline__ void put(u32 row, u32 col, i64 sum) const {
        if (row >= rows || col >= cols) return;
        const u64 at = static_cast<u64>(row) * cols + col;
        if (sums != nullptr) {
            atomicAdd(sums + at, static_cast<u64>(sum));
            return;
        }
        const i32 ea = a_exp == nullptr ? 0 : a_exp[row];
        const i32 eb = b_exp == nullptr ? 0 : b_exp[col];
        f32 value = rounded_sum(sum, ea, eb);
#pragma unroll
        for (u32 i = 0; i < LEFT_SIDES; ++i)
            if (left[i] != nullptr) value = rn::add(left[i][at], value);
        out[at] = value;
    }
};

// Both operands, the run [depth_start, depth_end) of the summed axis that this block takes, and the
// results.
struct Product {
    Operand a;
    Operand b;
    u32 depth_start;
    u32 depth_end;
    Sink sink;
};

// Blocks along y share the summed axis, `chunk` steps each; with more than one, `sums` is not null.
#define PRODUCT_PARAMETERS \
    const i16 *a, u64 a_row_stride, u64 a_depth_stride, const i32 *a_exp, const i16 *b, \
        u64 b_row_stride, u64 b_depth_stride, const i32 *b_exp, u32 rows, u32 cols, u32 depth, \
        u32 chunk, f32 *out, const f32 *left0, const f32 *left1, const f32 *left2, u64 *sums
#define PRODUCT \
    Product { \
        {a, a_row_stride, a_depth_stride, rows}, {b, b_row_stride, b_depth_stride, cols}, \
            blockIdx.y *chunk, least(depth, (blockIdx.y + 1) * chunk), { \
            a_exp, b_exp, out, {left0, left1, left2}, sums, rows, cols \
        } \
    }

// Rows of tiles that are worked on together, so that the tiles of B stay in the cache meanwhile.
#define TILE_ROWS_TOGETHER 8

// The tile of block `index`: row and column of its first element.
template <typename Engine> DEVICE void place_tile(const Product &product, u32 &row, u32 &col) {
    const u32 down = div_ceil(product.sink.rows, Engine::ROWS);
    const u32 across = div_ceil(product.sink.cols, Engine::COLS);
    const u32 band = blockIdx.x / (TILE_ROWS_TOGETHER * across);
    const u32 in_band = blockIdx.x - band * TILE_ROWS_TOGETHER * across;
    const u32 height = least<u32>(down - band * TILE_ROWS_TOGETHER, TILE_ROWS_TOGETHER);
    row = (band * TILE_ROWS_TOGETHER + in_band % height) * Engine::ROWS;
    col = in_band / height * Engine::COLS;
}

// One tile of the product by one block. Two tiles of each operand lie in shared memory: while one
// is multiplied the next is on its way.
template <typename Engine, u32 A, u32 B> DEVICE void multiply(const Product &product) {
    using Store = typename Engine::Store;
    using Digit = typename Store::Digit;
    using StageA = Stage<Engine::ROWS, A, Store>;
    using StageB = Stage<Engine::COLS, B, Store>;
    constexpr u32 A_TILE = A * StageA::PLANE, TILE = A_TILE + B * StageB::PLANE;
    DYNAMIC_SHARED(u8, shared);
    Digit *tiles = reinterpret_cast<Digit *>(shared);

    u32 row, col;
    place_tile<Engine>(product, row, col);
    const Layout a_layout = layout_of(product.a), b_layout = layout_of(product.b);
    StageA a;
    StageB b;
    Engine engine;
    engine.clear();
    const u32 end = product.depth_end;
    u32 at = 0;
    a.load(product.a, a_layout, row, product.depth_start, end);
    b.load(product.b, b_layout, col, product.depth_start, end);
    a.store(a_layout, tiles);
    b.store(b_layout, tiles + A_TILE);
    __syncthreads();
    for (u32 depth = product.depth_start; depth < end; depth += TILE_DEPTH) {
        const bool has_next = end - depth > TILE_DEPTH;
        if (has_next) {
            a.load(product.a, a_layout, row, depth + TILE_DEPTH, end);
            b.load(product.b, b_layout, col, depth + TILE_DEPTH, end);
        }
        engine.step(tiles + at, tiles + at + A_TILE);
        at = TILE - at;
        if (has_next) {
            a.store(a_layout, tiles + at);
            b.store(b_layout, tiles + at + A_TILE);
        }
        __syncthreads();
    }
    engine.finish(shared, [&](u32 r, u32 c, i64 sum) { product.sink.put(row + r, col + c, sum); });
}

// Named by engine, digits of A, digits of B.
KERNEL(256) matmul_dot_11(PRODUCT_PARAMETERS) { multiply<DotEngine<1, 1>, 1, 1>(PRODUCT); }
KERNEL(256) matmul_dot_12(PRODUCT_PARAMETERS) { multiply<DotEngine<1, 2>, 1, 2>(PRODUCT); }
KERNEL(256) matmul_dot_21(PRODUCT_PARAMETERS) { multiply<DotEngine<2, 1>, 2, 1>(PRODUCT); }
KERNEL(256) matmul_dot_22(PRODUCT_PARAMETERS) { multiply<DotEngine<2, 2>, 2, 2>(PRODUCT); }

// Tensor cores: a GPU that lacks them gets empty kernels, which the host does not launch.
#if defined(CONCORD_EMULATED) || ARCH >= 75
// 64 x 128 elements a block, and 16 x 128 for products of few rows.
#define INT8_WIDE(A, B) multiply<Int8Engine<A, B, 2, 2, 4>, A, B>(PRODUCT)
#define INT8_FLAT(A, B) multiply<Int8Engine<A, B, 1, 1, 2>, A, B>(PRODUCT)
#else
#define INT8_WIDE(A, B)
#define INT8_FLAT(A, B)
#endif

KERNEL(256) matmul_int8_11(PRODUCT_PARAMETERS) { INT8_WIDE(1, 1); }
KERNEL(256) matmul_int8_12(PRODUCT_PARAMETERS) { INT8_WIDE(1, 2); }
KERNEL(256) matmul_int8_21(PRODUCT_PARAMETERS) { INT8_WIDE(2, 1); }
KERNEL(256) matmul_int8_22(PRODUCT_PARAMETERS) { INT8_WIDE(2, 2); }
KERNEL(256) matmul_int8_flat_11(PRODUCT_PARAMETERS) { INT8_FLAT(1, 1); }
KERNEL(256) matmul_int8_flat_12(PRODUCT_PARAMETERS) { INT8_FLAT(1, 2); }
KERNEL(256) matmul_int8_flat_21(PRODUCT_PARAMETERS) { INT8_FLAT(2, 1); }
KERNEL(256) matmul_int8_flat_22(PRODUCT_PARAMETERS) { INT8_FLAT(2, 2); }

#if defined(CONCORD_EMULATED) || ARCH >= 70
#define HALF(A, B) multiply<HalfEngine<A, B>, A, B>(PRODUCT)
#else
#define HALF(A, B)
#endif

KERNEL(256) matmul_half_11(PRODUCT_PARAMETERS) { HALF(1, 1); }
KERNEL(256) matmul_half_12(PRODUCT_PARAMETERS) { HALF(1, 2); }
KERNEL(256) matmul_half_21(PRODUCT_PARAMETERS) { HALF(2, 1); }
KERNEL(256) matmul_half_22(PRODUCT_PARAMETERS) { HALF(2, 2); }

// Rows of A that a warp takes at once where they are few, such as the one row of a decoded token.
#define FEW_ROWS 4

// Products of 8 codes each, whole codes, in i64: the work is the reading of B.
DEVICE void add_products(i64 &sum, const uint4 &x, const uint4 &y) {
    const u32 a[4] = {x.x, x.y, x.z, x.w}, b[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
        sum += static_cast<i64>(static_cast<i16>(a[i])) * static_cast<i16>(b[i]);
        sum += static_cast<i64>(static_cast<i32>(a[i]) >> 16) * (static_cast<i32>(b[i]) >> 16);
    }
}

// Eight codes along the depth from `depth` on, 0 beyond the end.
DEVICE uint4 eight_codes(const Operand &from, Layout layout, u32 row, u32 depth, u32 end) {
    if (layout == Layout::AlongDepth && row < from.rows && depth + 8 <= end)
        return *reinterpret_cast<const uint4 *>(from.q + row * from.row_stride + depth);
    u32 words[4];
#pragma unroll
    for (u32 i = 0; i < 4; ++i)
        words[i] = code_at(from, row, depth + 2 * i, end) |
                   code_at(from, row, depth + 2 * i + 1, end) << 16;
    return make_uint4(words[0], words[1], words[2], words[3]);
}

// A warp takes one row of B and FEW_ROWS rows of A, whatever the precisions.
// Blocks: x over the rows of B, 8 at a time; z over the rows of A.
KERNEL(256) matmul_few(PRODUCT_PARAMETERS) {
    const Product product = PRODUCT;
    const u32 col = blockIdx.x * 8 + warp_of_block();
    const Layout a_layout = layout_of(product.a), b_layout = layout_of(product.b);
    for (u32 row = blockIdx.z * FEW_ROWS; row < rows; row += gridDim.z * FEW_ROWS) {
        i64 sum[FEW_ROWS] = {};
#pragma unroll 2
        for (u32 at = product.depth_start + lane_of_warp() * 8; at < product.depth_end; at += 256) {
            const uint4 y = eight_codes(product.b, b_layout, col, at, product.depth_end);
#pragma unroll
            for (u32 i = 0; i < FEW_ROWS; ++i) {
                if (row + i >= rows) continue;
                const uint4 x = eight_codes(product.a, a_layout, row + i, at, product.depth_end);
                add_products(sum[i], x, y);
            }
        }
#pragma unroll
        for (u32 i = 0; i < FEW_ROWS; ++i) {
            for (u32 by = 16; by > 0; by /= 2) sum[i] += __shfl_xor_sync(WARP, sum[i], by);
            if (lane_of_warp() == i) product.sink.put(row + i, col, sum[i]);
        }
    }
}

// Rounds exact sums: out[row, col] = round_f32(2^(ea[row] + eb[col]) * sums[row, col]).
KERNEL(256) matmul_finish(const i64 *sums, const i32 *a_exp, const i32 *b_exp, u32 rows, u32 cols,
                          f32 *out, const f32 *left0, const f32 *left1, const f32 *left2) {
    const Sink sink = {a_exp, b_exp, out, {left0, left1, left2}, nullptr, rows, cols};
    const u64 count = static_cast<u64>(rows) * cols;
    for (u64 i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull)
        sink.put(static_cast<u32>(i / cols), static_cast<u32>(i % cols), sums[i]);
}

// Rows of a tile that one block splits into planes of digits.
#define PLANE_ROWS 64

// Planes of digits for libraries that multiply bytes: planes [digits][padded_rows][padded_depth], 0
// where q has no element. Blocks: x over PLANE_ROWS rows, y over TILE_DEPTH steps of the depth.
KERNEL(256) digit_planes(const i16 *q, u64 row_stride, u64 depth_stride, u32 rows, u32 depth_start,
                         u32 depth_end, u32 digits, u32 padded_rows, u32 padded_depth, u8 *planes) {
    using Tile = Stage<PLANE_ROWS, 2, ByteDigits<TILE_DEPTH + 4>>;
    __shared__ __align__(16) u8 shared[2 * Tile::PLANE];
    const Operand from = {q, row_stride, depth_stride, rows};
    const Layout layout = layout_of(from);
    const u32 first_row = blockIdx.x * PLANE_ROWS;
    for (u32 block = blockIdx.y; block < padded_depth / TILE_DEPTH; block += gridDim.y) {
        const u32 first = block * TILE_DEPTH;
        Tile tile;
        tile.load(from, layout, first_row, depth_start + first, depth_end);
        tile.store(layout, shared);
        __syncthreads();
        // A thread moves words, 8 to a row.
        for (u32 i = threadIdx.x; i < digits * PLANE_ROWS * 8; i += 256) {
            const u32 digit = i / (PLANE_ROWS * 8), row = i / 8 % PLANE_ROWS, depth = i % 8 * 4;
            if (first_row + row >= padded_rows) continue;
            const u8 *word = shared + digit * Tile::PLANE + row * (TILE_DEPTH + 4) + depth;
            const u64 at = static_cast<u64>(digit) * padded_rows + first_row + row;
            *reinterpret_cast<u32 *>(planes + at * padded_depth + first + depth) =
                *reinterpret_cast<const u32 *>(word);
        }
        __syncthreads();
    }
}

// Puts the sums of products of digits together: planes
// [digits_a + digits_b - 1][padded_rows][padded_cols].
KERNEL(256) digit_join(const i32 *planes, u32 count, u32 padded_rows, u32 padded_cols,
                       const i32 *a_exp, const i32 *b_exp, u32 rows, u32 cols, f32 *out,
                       const f32 *left0, const f32 *left1, const f32 *left2, u64 *sums) {
    const Sink sink = {a_exp, b_exp, out, {left0, left1, left2}, sums, rows, cols};
    const u64 plane = static_cast<u64>(padded_rows) * padded_cols;
    const u64 elements = static_cast<u64>(rows) * cols;
    for (u64 i = blockIdx.x * 256ull + threadIdx.x; i < elements; i += gridDim.x * 256ull) {
        const u32 row = static_cast<u32>(i / cols), col = static_cast<u32>(i % cols);
        const u64 at = static_cast<u64>(row) * padded_cols + col;
        i64 sum = 0;
        for (u32 s = 0; s < count; ++s) sum += static_cast<i64>(planes[s * plane + at]) << (8 * s);
        sink.put(row, col, sum);
    }
}
