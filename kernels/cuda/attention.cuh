// What the kernels of attention share (NUMERICS.md, section 5). A thread block of 256 threads takes
// a tile of 32 rows; against a block of 128 columns it makes two kinds of exact products:
//
//     scores   [32 rows, 128 columns] = rows [32, dim] x columns [128, dim], over the features
//     features [32 rows, dim] = coded tile [32, 128] x columns [128, dim], over the columns
//
// Codes lie in shared memory as planes of 8-bit digits, q = 256 * high + low, four elements of the
// summed axis a word: what tensor cores (sm_75 and later) and dp4a take. Either way the lanes of a
// warp hold the sums as a tensor core lays them out, so that all other code is the same for both.
#pragma once
#include "coding.cuh"
#include "digits.cuh"
#include "mma.cuh"
#include "math.cuh"

static constexpr u32 THREADS = 256;
// Rows of a tile.
static constexpr u32 ROWS = 32;
// Columns that a tile is multiplied with at once: the keys of a block, or the queries of one.
static constexpr u32 BLOCK = 128;
// Blocks of keys of a chunk.
static constexpr u32 CHUNK_BLOCKS = 8;
// Features that lie in shared memory at once.
static constexpr u32 SLICE = 64;

DEVICE u32 padded_to_32(u32 depth) { return (depth + 31) / 32 * 32; }

// Digits of COUNT rows of DEPTH elements. The padding of 4 words puts the fragments of a warp (8
// rows by 4 words) into 32 banks.
template <u32 DIGITS, u32 COUNT, u32 DEPTH> struct Digits {
    u32 word[DIGITS][COUNT][DEPTH / 4 + 4];
};

// Four codes as two pairs of 16 bits, the first in the low half.
struct FourCodes {
    u32 first;
    u32 second;
};

// Codes [feature, feature + 4) of a row of `dim`; zeros beyond its end, and where there is no row.
DEVICE FourCodes four_codes(const i16 *row, u32 feature, u32 dim) {
    if (row == nullptr || feature >= dim) return {0, 0};
    if (dim % 4 == 0) {
        const u64 codes = *reinterpret_cast<const u64 *>(row + feature);
        return {static_cast<u32>(codes), static_cast<u32>(codes >> 32)};
    }
    u32 code[4];
    for (u32 i = 0; i < 4; i++)
        code[i] = feature + i < dim ? static_cast<u16>(row[feature + i]) : 0;
    return {code[0] | code[1] << 16, code[2] | code[3] << 16};
}

// Digit `digit` of four codes, a byte each.
DEVICE u32 digits_of(FourCodes codes, u32 digit) {
    return digit == 0 ? low_digits(codes.first, codes.second)
                      : high_digits(codes.first, codes.second);
}

// Four codes of 8 bits: each is its own digit.
struct FourBytes {
    u32 word;
};

DEVICE FourBytes four_codes(const i8 *row, u32 feature, u32 dim) {
    if (row == nullptr || feature >= dim) return {0};
    if (dim % 4 == 0) return {*reinterpret_cast<const u32 *>(row + feature)};
    u32 word = 0;
    for (u32 i = 0; i < 4; i++)
        if (feature + i < dim) word |= static_cast<u32>(static_cast<u8>(row[feature + i])) << 8 * i;
    return {word};
}

DEVICE u32 digits_of(FourBytes codes, u32) { return codes.word; }

// Puts features [start, start + SLICE) of COUNT rows into shared memory. `row(i)` is where the
// codes of row i begin: null for a row of zeros.
template <u32 DIGITS, u32 COUNT, typename Row>
DEVICE void stage_rows(Digits<DIGITS, COUNT, SLICE> &to, u32 start, u32 dim, Row row) {
    const u32 words = least(SLICE, padded_to_32(dim - start)) / 4;
    for (u32 i = threadIdx.x; i < COUNT * (SLICE / 4); i += THREADS) {
        const u32 at = i / (SLICE / 4), word = i % (SLICE / 4);
        if (word >= words) continue;
        const auto codes = four_codes(row(at), start + 4 * word, dim);
#pragma unroll
        for (u32 digit = 0; digit < DIGITS; digit++)
            to.word[digit][at][word] = digits_of(codes, digit);
    }
}

// The same features as rows of shared memory, summed over `depth` (padded to 32) of the rows.
template <u32 DIGITS, typename Row>
DEVICE void stage_features(Digits<DIGITS, SLICE, BLOCK> &to, u32 start, u32 dim, u32 depth,
                           Row row) {
    for (u32 i = threadIdx.x; i < SLICE / 4 * (BLOCK / 4); i += THREADS) {
        // A warp reads 32 bytes of each of 32 rows, and writes into 16 banks.
        const u32 group = i % 4 + i / 32 % 4 * 4, word = i / 4 % 8 + i / 128 * 8;
        if (4 * word >= depth) continue;
        u32 square[DIGITS][4];
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            const auto codes = four_codes(row(4 * word + k), start + 4 * group, dim);
#pragma unroll
            for (u32 digit = 0; digit < DIGITS; digit++)
                square[digit][k] = digits_of(codes, digit);
        }
#pragma unroll
        for (u32 digit = 0; digit < DIGITS; digit++) {
            transpose_bytes(square[digit]);
#pragma unroll
            for (u32 f = 0; f < 4; f++)
                to.word[digit][4 * group + f][word] = square[digit][f];
        }
    }
}

// A lane's sums of a tile: its warp has 16 rows by TILES times 8 columns, the lane elements i =
// 0..4 of each 16 by 8, in row `own_row(i / 2)`. Below 2^31 for every depth up to 2^16. LEFT and
// RIGHT are the digits of rows and of columns.
template <u32 LEFT, u32 RIGHT, u32 TILES> struct Sums {
    static constexpr u32 PARTS = LEFT + RIGHT - 1;
    // By digits: low x low, low x high and high x low, high x high.
    i32 part[PARTS][TILES][4];

    i64 total(u32 tile, u32 i) const {
        i64 sum = part[0][tile][i];
        if constexpr (PARTS > 1) sum += static_cast<i64>(part[1][tile][i]) << 8;
        if constexpr (PARTS > 2) sum += static_cast<i64>(part[2][tile][i]) << 16;
        return sum;
    }
};

// The row of a tile in which elements 2 * half and 2 * half + 1 of each 16 by 8 lie.
DEVICE u32 own_row(u32 half) { return warp_of_block() / 4 * 16 + lane_of_warp() / 4 + 8 * half; }

// The column of element i of tile n among scores: four tiles 32 apart, so that a lane has all
// columns of a lane of the short sums.
DEVICE u32 own_column(u32 n, u32 i) {
    return warp_of_block() % 4 * 8 + 32 * n + lane_of_warp() % 4 * 2 + i % 2;
}

// The same among the features of a slice: two tiles side by side.
DEVICE u32 own_feature(u32 n, u32 i) {
    return warp_of_block() % 4 * 16 + 8 * n + lane_of_warp() % 4 * 2 + i % 2;
}

// The products of the warp's 16 rows of `a` and of rows [column + n * STEP, + 8) of `b`, over
// `depth` elements (a multiple of 32).
template <u32 STEP, u32 LEFT, u32 RIGHT, u32 TILES, typename A, typename B>
DEVICE void multiply(Sums<LEFT, RIGHT, TILES> &sums, const A &a, const B &b, u32 column,
                     u32 depth) {
    const u32 row = own_row(0), lane = lane_of_warp();
#if ARCH >= 75
    for (u32 word = lane % 4; word < depth / 4; word += 8) {
        u32 left[LEFT][4];
#pragma unroll
        for (u32 digit = 0; digit < LEFT; digit++)
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                left[digit][i] = a.word[digit][row + i % 2 * 8][word + i / 2 * 4];
#pragma unroll
        for (u32 n = 0; n < TILES; n++) {
            const u32 at = column + n * STEP + lane / 4;
#pragma unroll
            for (u32 db = 0; db < RIGHT; db++) {
                const u32 right[2] = {b.word[db][at][word], b.word[db][at][word + 4]};
#pragma unroll
                for (u32 da = 0; da < LEFT; da++)
                    mma(sums.part[da + db][n], left[da], right);
            }
        }
    }
#else
    for (u32 word = 0; word < depth / 4; word++) {
        u32 left[LEFT][2];
#pragma unroll
        for (u32 digit = 0; digit < LEFT; digit++)
#pragma unroll
            for (u32 i = 0; i < 2; i++) left[digit][i] = a.word[digit][row + i * 8][word];
#pragma unroll
        for (u32 n = 0; n < TILES; n++)
#pragma unroll
            for (u32 db = 0; db < RIGHT; db++)
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    const u32 right = b.word[db][column + n * STEP + lane % 4 * 2 + i % 2][word];
#pragma unroll
                    for (u32 da = 0; da < LEFT; da++) {
                        i32 &sum = sums.part[da + db][n][i];
                        const u32 own = left[da][i / 2];
                        sum = __dp4a(static_cast<i32>(own), static_cast<i32>(right), sum);
                    }
                }
    }
#endif
}

// Room for the operands of a product, one kind at a time.
template <u32 LEFT, u32 RIGHT> union Stage {
    struct {
        Digits<LEFT, ROWS, SLICE> left;
        Digits<RIGHT, BLOCK, SLICE> right;
    } rows;
    Digits<RIGHT, SLICE, BLOCK> features;
};

// The sums of all scores of a tile. `left(i)` and `right(i)` give the codes of a row and of a
// column. Every thread of the block calls it; what it wrote to shared memory before is seen by all
// after.
template <u32 LEFT, u32 RIGHT, typename Left, typename Right>
DEVICE void score_sums(Sums<LEFT, RIGHT, 4> &sums, Stage<LEFT, RIGHT> &stage, u32 dim, Left left,
                       Right right) {
    sums = {};
    for (u32 start = 0; start < dim; start += SLICE) {
        __syncthreads();
        stage_rows(stage.rows.left, start, dim, left);
        stage_rows(stage.rows.right, start, dim, right);
        __syncthreads();
        const u32 depth = least(SLICE, padded_to_32(dim - start));
        multiply<32>(sums, stage.rows.left, stage.rows.right, warp_of_block() % 4 * 8, depth);
    }
}

// 32 rows of 128 columns, coded row by row.
template <u32 DIGITS> struct CodedTile {
    Digits<DIGITS, ROWS, BLOCK> digits;
    // The greatest magnitude of each row.
    u32 key[ROWS];
};

// The largest of a value of the four lanes that share their rows.
template <typename T> DEVICE T largest_of_four(T mine) {
    mine = greatest(mine, __shfl_xor_sync(WARP, mine, 1));
    return greatest(mine, __shfl_xor_sync(WARP, mine, 2));
}

// Codes the rows of a tile, of which each lane has its elements: column c times 2^fold[c]. An
// element counts for the exponent where bit 4 n + i of `counts` is set; elsewhere it is a zero.
// `exponent` gets those of the lane's two rows. Every thread of the block calls it; the digits are
// there after the next barrier.
template <u32 DIGITS>
DEVICE void code_tile(CodedTile<DIGITS> &to, i32 (&exponent)[2], const f32 (&value)[4][4],
                      const i32 *fold, i32 limit, u32 counts) {
    if (threadIdx.x < ROWS) to.key[threadIdx.x] = 0;
    __syncthreads();
    u32 key[2] = {0, 0};
#pragma unroll
    for (u32 n = 0; n < 4; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 own = magnitude_key(value[n][i], fold[own_column(n, i)]);
            if (counts >> (4 * n + i) & 1) key[i / 2] = greatest(key[i / 2], own);
        }
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 most = largest_of_four(key[half]);
        if (lane_of_warp() % 4 == 0) atomicMax(&to.key[own_row(half)], most);
    }
    __syncthreads();
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 row = own_row(half);
        exponent[half] = exponent_of_key(to.key[row], limit);
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            const u32 column = own_column(n, 0);
            u32 pair = 0;
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
                const i32 code = code_of(value[n][2 * half + i], fold[column + i], exponent[half]);
                pair |= (static_cast<u32>(code) & 0xffffu) << 16 * i;
            }
#pragma unroll
            for (u32 digit = 0; digit < DIGITS; digit++)
                reinterpret_cast<u16 *>(to.digits.word[digit][row])[column / 2] =
                    static_cast<u16>(digits_of({pair, 0}, digit));
        }
    }
}

// The products of a coded tile and the codes `row(column)` over the first `columns` columns:
// `put(half, feature, sum)` for each feature of the lane's two rows. Every thread of the block
// calls it.
template <u32 LEFT, u32 RIGHT, typename Row, typename Put>
DEVICE void feature_sums(Stage<LEFT, RIGHT> &stage, const CodedTile<LEFT> &tile, u32 dim,
                         u32 columns, Row row, Put put) {
    const u32 depth = padded_to_32(columns);
    for (u32 start = 0; start < dim; start += SLICE) {
        __syncthreads();
        stage_features(stage.features, start, dim, depth, row);
        __syncthreads();
        Sums<LEFT, RIGHT, 2> sums = {};
        multiply<8>(sums, tile.digits, stage.features, warp_of_block() % 4 * 16, depth);
#pragma unroll
        for (u32 n = 0; n < 2; n++)
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                const u32 feature = start + own_feature(n, i);
                if (feature < dim) put(i / 2, feature, sums.total(n, i));
            }
    }
}

// rounded_product of a sum below 2^40, without f64 where the result is a normal number: there only
// the conversion of the sum rounds.
DEVICE f32 product_of(i64 sum, i32 ea, i32 eb) {
    const i32 exponent = ea + eb;
    if (greatest(ea, eb) < POISON / 2 && exponent >= -126 && exponent <= 80)
        return rn::mul(__ll2float_rn(sum), pow2_f32(exponent));
    return rounded_product(sum, ea, eb);
}

// The soft cap of scores, kernels/src/reference/attention/cap.rs: ln(2) / cap and cap * log2(e).
struct ScoreCap {
    f32 inward;
    f32 outward;

    f32 bent(f32 score) const { return tanh_of(rn::mul(score, inward)); }
    f32 of(f32 score) const { return rn::mul(outward, bent(score)); }
};
