// Row coding: NUMERICS.md, section 2. A row's exponent comes from its largest magnitude, then every
// element is rounded to a code.
#include "coding.cuh"
#include "spread.cuh"

// Codes one row by the `width` threads that call it, of which this one is `self`. `greatest_of`
// gives all of them the greatest of their keys.
template <typename Greatest>
DEVICE void code_row(const f32 *x, u32 cols, const i32 *fold, i32 limit, i16 *q, i32 *exp, u32 self,
                     u32 width, Greatest greatest_of) {
    u32 key = 0;
    for (u32 col = self; col < cols; col += width)
        key = greatest(key, magnitude_key(x[col], fold == nullptr ? 0 : fold[col]));
    const i32 exponent = exponent_of_key(greatest_of(key), limit);
    if (self == 0) *exp = exponent;
    const CodeFactors plain = code_factors(0, exponent);
    for (u32 col = self; col < cols; col += width) {
        const CodeFactors by = fold == nullptr ? plain : code_factors(fold[col], exponent);
        q[col] = static_cast<i16>(code_of(x[col], by));
    }
}

DEVICE u32 greatest_of_warp(u32 key) {
    for (u32 by = 16; by > 0; by /= 2) key = greatest(key, __shfl_xor_sync(WARP, key, by));
    return key;
}

// One block per row: x [rows, cols], fold [cols] or null, q [rows, cols], exp [rows].
KERNEL(256) code_rows(const f32 *x, u32 rows, u32 cols, const i32 *fold, i32 limit, i16 *q,
                      i32 *exp) {
    __shared__ u32 keys[8];
    for (u32 row = blockIdx.x; row < rows; row += gridDim.x) {
        const u64 at = static_cast<u64>(row) * cols;
        code_row(x + at, cols, fold, limit, q + at, exp + row, threadIdx.x, 256, [&](u32 key) {
            key = greatest_of_warp(key);
            // The keys of the row before are read by now.
            __syncthreads();
            if (lane_of_warp() == 0) keys[warp_of_block()] = key;
            __syncthreads();
            return greatest_of_warp(lane_of_warp() < 8 ? keys[lane_of_warp()] : 0);
        });
    }
}

// One warp per row, for short rows such as those of heads.
KERNEL(256) code_short_rows(const f32 *x, u32 rows, u32 cols, const i32 *fold, i32 limit, i16 *q,
                            i32 *exp) {
    for (u32 row = blockIdx.x * 8 + warp_of_block(); row < rows; row += gridDim.x * 8) {
        const u64 at = static_cast<u64>(row) * cols;
        code_row(x + at, cols, fold, limit, q + at, exp + row, lane_of_warp(), 32,
                 greatest_of_warp);
    }
}

// Columns of a tile, and rows that are transposed at once.
#define TILE_COLS 32
#define TILE_ROWS 64

// Codes the columns of each atom of rows: x is `sequences` runs of `sequence_rows` rows of `cols`,
// cut into atoms of at most `atom_rows`; fold has an exponent per row or is null. Atom t: q [cols,
// stride] from t * cols * stride on, of which a row's first elements are used, and exp [cols] from
// t * cols on. Blocks: (tiles of columns) x (atoms).
KERNEL(256) code_cols(const f32 *x, u32 sequence_rows, u32 cols, u32 atom_rows, const i32 *fold,
                      i32 limit, i16 *q, u32 stride, i32 *exp) {
    __shared__ u32 keys[8][TILE_COLS];
    // Odd in words: 32 columns of a row start in 32 banks.
    __shared__ i16 turned[TILE_COLS][TILE_ROWS + 2];
    const u32 tiles = div_ceil<u32>(cols, TILE_COLS), atoms = div_ceil(sequence_rows, atom_rows);
    const u32 atom = blockIdx.x / tiles, in_sequence = atom % atoms * atom_rows;
    const u32 rows = least(atom_rows, sequence_rows - in_sequence);
    const u64 first_row = static_cast<u64>(atom / atoms) * sequence_rows + in_sequence;
    const u32 first_col = blockIdx.x % tiles * TILE_COLS, col = first_col + lane_of_warp();
    x += first_row * cols;
    if (fold != nullptr) fold += first_row;
    q += static_cast<u64>(atom) * cols * stride;

    u32 key = 0;
    for (u32 row = warp_of_block(); row < rows && col < cols; row += 8) {
        const f32 value = x[static_cast<u64>(row) * cols + col];
        key = greatest(key, magnitude_key(value, fold == nullptr ? 0 : fold[row]));
    }
    keys[warp_of_block()][lane_of_warp()] = key;
    __syncthreads();
    for (u32 i = 0; i < 8; ++i) key = greatest(key, keys[i][lane_of_warp()]);
    const i32 exponent = exponent_of_key(key, limit);
    if (warp_of_block() == 0 && col < cols) exp[static_cast<u64>(atom) * cols + col] = exponent;

    for (u32 start = 0; start < rows; start += TILE_ROWS) {
        const u32 height = least<u32>(rows - start, TILE_ROWS);
        for (u32 i = warp_of_block(); i < height && col < cols; i += 8) {
            const u32 row = start + i;
            const CodeFactors by = code_factors(fold == nullptr ? 0 : fold[row], exponent);
            const i32 code = code_of(x[static_cast<u64>(row) * cols + col], by);
            turned[lane_of_warp()][i] = static_cast<i16>(code);
        }
        __syncthreads();
        for (u32 i = warp_of_block(); i < TILE_COLS && first_col + i < cols; i += 8)
            for (u32 j = lane_of_warp(); j < height; j += 32)
                q[static_cast<u64>(first_col + i) * stride + start + j] = turned[i][j];
        __syncthreads();
    }
}

// Codes rows with given exponents: x and q of `len` elements in rows of `cols`, exp [rows].
KERNEL(256) code_at(const f32 *x, u64 len, u32 cols, const i32 *exp, i16 *q) {
    for_each_of(len, [&](u64 i) { q[i] = static_cast<i16>(code_of(x[i], 0, exp[i / cols])); });
}
