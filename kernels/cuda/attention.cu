// Attention, forward: NUMERICS.md, section 5; twin of kernels/src/cpu/attention/forward.rs.
//
//     q      [sequences, tokens, heads, dim] codes, scaled    out  [sequences, tokens, heads, dim]
//     k, v   [sequences, tokens, kv_heads, dim] codes          max, sum  [sequences, tokens, heads]
//
// attention_forward: a thread block takes 32 queries of one key head and the key blocks of one slot
// (a chunk, or a single block where chunks would leave the GPU idle), and writes the softmax over
// the slot's keys. attention_merge: merges the slots of a chunk in order, then the chunks in order:
// the same bits for every cut.
#include "attention.cuh"
#include "heads.cuh"
#include "spread.cuh"
#include "sum.cuh"

// Stands for the maximum of a softmax over no keys.
#define NO_MAX (-2147483647 - 1)
// A sum so many powers of two below the maximum is dropped.
#define DROP_BELOW 60

// 2^(from - to), or 0 where that is dropped by rule.
DEVICE f32 rescale(i32 from, i32 to) {
    const i32 shift = static_cast<i32>(static_cast<u32>(from) - static_cast<u32>(to));
    return shift < -DROP_BELOW ? 0.0f : pow2_f32(least(shift, 0));
}

// How a later softmax is merged into an earlier one: the sums become earlier * keep + later * add.
struct Merge {
    // The later one has no keys, or the earlier one has none.
    bool skip;
    bool replace;
    f32 keep;
    f32 add;

    f32 of(f32 earlier, f32 later) const {
        if (skip) return earlier;
        return replace ? later : rn::add(rn::mul(earlier, keep), rn::mul(later, add));
    }
};

// Raises `max` to the maximum of both.
DEVICE Merge merge_of(i32 &max, i32 later) {
    if (later == NO_MAX) return {true, false, 1.0f, 0.0f};
    const i32 earlier = max;
    max = greatest(earlier, later);
    if (earlier == NO_MAX) return {false, true, 0.0f, 1.0f};
    return {false, false, rescale(earlier, max), rescale(later, max)};
}

// The keys and values of a block of 128 tokens: pointers to the row of its first token and of the
// key head that this thread block works on.
template <typename Code> struct KeyBlock {
    const Code *k;
    const i32 *k_exp;
    const Code *v;
    const i32 *v_exp;
};

// The arguments of attention_forward, but for the results. Codes of keys and values are of type
// Code.
template <typename Code> struct Forward {
    const i16 *q;
    const i32 *q_exp;
    // Keys and values of each sequence in one piece; null where they lie in pages.
    KeyBlock<Code> dense;
    // Pages of 128 tokens, two addresses each: codes [k | v, 128, kv_heads, dim], then exponents.
    const u64 *pages;
    Heads shape;
    // Read where scores are capped.
    ScoreCap cap;
    i32 limit;
    // Tokens of a sequence; the part of them, and of the sequences, that this launch computes.
    u32 tokens;
    u32 first_sequence;
    u32 first_token;
    u32 count;
    // The position of token 0.
    u32 first_position;
    // Blocks of keys: slot s has [first_block + s * slot_blocks, + slot_blocks).
    u32 first_block;
    u32 slot_blocks;
    u32 slots;

    KeyBlock<Code> keys(u32 sequence, u32 block, u32 kv_head) const {
        if (pages == nullptr) {
            const u64 token = static_cast<u64>(sequence) * tokens + static_cast<u64>(block) * BLOCK;
            const u64 row = token * shape.kv_heads + kv_head;
            const u64 at = row * shape.dim;
            return {dense.k + at, dense.k_exp + row, dense.v + at, dense.v_exp + row};
        }
        const Code *codes = reinterpret_cast<const Code *>(pages[2 * block]);
        const i32 *exps = reinterpret_cast<const i32 *>(pages[2 * block + 1]);
        const u32 rows = BLOCK * shape.kv_heads;
        const Code *k = codes + kv_head * shape.dim;
        const i32 *e = exps + kv_head;
        return {k, e, k + static_cast<u64>(rows) * shape.dim, e + rows};
    }
};

// Shared memory of attention_forward, for queries and probabilities of LEFT digits, keys and values
// of RIGHT digits.
template <u32 LEFT, u32 RIGHT> struct ForwardTile {
    Stage<LEFT, RIGHT> stage;
    CodedTile<LEFT> p;
    i32 k_exp[BLOCK];
    i32 v_exp[BLOCK];
    // By rows: the query and its exponent, the lanes of the short sum, the maximum of the block,
    // how the block is merged, and the softmax so far.
    Query query[ROWS];
    i32 q_exp[ROWS];
    f32 lanes[ROWS][32];
    i32 block_max[ROWS];
    Merge merge[ROWS];
    i32 max[ROWS];
    f32 sum[ROWS];
};

// Turns the sums of a block into scores, under the cap where CAPPED. In the result bit 4 n + i is
// set where the query sees the key. The maximum of each row comes out in shared memory, after the
// next barrier.
template <bool CAPPED, u32 LEFT, u32 RIGHT>
DEVICE u32 take_scores(f32 (&value)[4][4], const Sums<LEFT, RIGHT, 4> &sums,
                       ForwardTile<LEFT, RIGHT> &tile, const ScoreCap &cap, u32 first_key) {
    u32 seen = 0;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        const u32 row = own_row(half);
        const Query query = tile.query[row];
        const i32 q_exp = tile.q_exp[row];
        f32 most = NEG_INFINITY;
#pragma unroll
        for (u32 n = 0; n < 4; n++)
#pragma unroll
            for (u32 i = 2 * half; i < 2 * half + 2; i++) {
                const u32 column = own_column(n, i);
                f32 score = product_of(sums.total(n, i), q_exp, tile.k_exp[column]);
                if constexpr (CAPPED) score = cap.of(score);
                value[n][i] = score;
                if (!query.sees(first_key + column)) continue;
                seen |= 1u << (4 * n + i);
                // A maximum ignores NaN: the sum of the exponentials will be NaN.
                most = score > most ? score : most;
            }
        most = largest_of_four(most);
        if (lane_of_warp() % 4 == 0) atomicMax(&tile.block_max[row], ceil_to_int(most));
    }
    return seen;
}

// Turns scores into p = exp2(score - max), 0 where masked; puts the lanes of their sums into shared
// memory.
template <typename Tile>
DEVICE void take_exponentials(f32 (&value)[4][4], Tile &tile, u32 seen) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        const u32 row = own_row(i / 2);
        const f32 max = __int2float_rn(tile.block_max[row]);
        f32 lane = 0.0f;
#pragma unroll
        for (u32 n = 0; n < 4; n++) {
            const f32 p = exp2_of(rn::sub(value[n][i], max));
            value[n][i] = seen >> (4 * n + i) & 1 ? p : 0.0f;
            lane = rn::add(lane, value[n][i]);
        }
        tile.lanes[row][own_column(0, i)] = lane;
    }
}

// Adds the denominators of a block to those so far: a warp takes four rows.
template <typename Tile> DEVICE void merge_sums(Tile &tile, u32 first_key) {
    for (u32 row = warp_of_block() * 4; row < warp_of_block() * 4 + 4; row++) {
        const f32 sum = halve(tile.lanes[row][lane_of_warp()]);
        if (lane_of_warp() != 0) continue;
        const bool seen = tile.query[row].sees_any(first_key, BLOCK);
        const Merge merge = merge_of(tile.max[row], seen ? tile.block_max[row] : NO_MAX);
        tile.sum[row] = merge.of(tile.sum[row], sum);
        tile.merge[row] = merge;
    }
}

// Merges the softmax of the block of keys from `first_key` on, of which there are `count`, into the
// one so far. `q`, `part_out` are where the codes and the results of the run of queries begin.
template <bool CAPPED, typename Code, u32 LEFT, u32 RIGHT>
DEVICE void forward_block(ForwardTile<LEFT, RIGHT> &tile, const Forward<Code> &in,
                          const KeyBlock<Code> &keys, u32 first_key, u32 count, const i16 *q,
                          f32 *part_out) {
    const u32 dim = in.shape.dim, kv_heads = in.shape.kv_heads;
    const u32 step = kv_heads * dim;
    const auto query_codes = [&](u32 row) -> const i16 * {
        return tile.query[row].end > 0 ? q + tile.query[row].row * dim : nullptr;
    };
    const auto key_codes = [&](u32 key) { return key < count ? keys.k + key * step : nullptr; };
    const auto value_codes = [&](u32 key) { return key < count ? keys.v + key * step : nullptr; };

    if (threadIdx.x < ROWS) tile.block_max[threadIdx.x] = -1048576;
    if (threadIdx.x < BLOCK) {
        const u32 key = threadIdx.x;
        tile.k_exp[key] = key < count ? keys.k_exp[key * kv_heads] : 0;
        tile.v_exp[key] = key < count ? keys.v_exp[key * kv_heads] : 0;
    }
    f32 value[4][4];
    Sums<LEFT, RIGHT, 4> sums;
    score_sums(sums, tile.stage, dim, query_codes, key_codes);
    const u32 seen = take_scores<CAPPED>(value, sums, tile, in.cap, first_key);
    __syncthreads();
    take_exponentials(value, tile, seen);
    i32 exponent[2];
    code_tile(tile.p, exponent, value, tile.v_exp, in.limit, seen);
    merge_sums(tile, first_key);
    feature_sums(tile.stage, tile.p, dim, count, value_codes, [&](u32 half, u32 feature, i64 sum) {
        const u32 row = own_row(half);
        const Merge merge = tile.merge[row];
        if (merge.skip) return;
        f32 &out = part_out[tile.query[row].row * dim + feature];
        const f32 later = product_of(sum, exponent[half], 0);
        out = merge.replace ? later : merge.of(out, later);
    });
}

template <u32 LEFT, u32 RIGHT, bool CAPPED, typename Code>
DEVICE void forward(const Forward<Code> &in, f32 *part_out, i32 *part_max, f32 *part_sum) {
    __shared__ ForwardTile<LEFT, RIGHT> tile;
    const Heads &shape = in.shape;
    const u32 kv_head = blockIdx.y, group = shape.group();
    // The last tiles have the most keys: they start first.
    const u32 tiles = div_ceil(in.count * group, ROWS), blocks = gridDim.x / tiles;
    const u32 first_row = (tiles - 1 - blockIdx.x / blocks) * ROWS;
    const u32 slot = blockIdx.x % blocks % in.slots, part_sequence = blockIdx.x % blocks / in.slots;
    const u32 sequence = in.first_sequence + part_sequence;
    const u32 first_position = in.first_position + in.first_token;
    const u32 last_token = least((first_row + ROWS - 1) / group, in.count - 1);
    const u32 end_key = first_position + last_token + 1;
    // Rows before this run of queries, among all and in the results.
    const u64 rows = (static_cast<u64>(sequence) * in.tokens + in.first_token) * shape.heads;
    const u64 part = static_cast<u64>(slot) * (blocks / in.slots) + part_sequence;
    const u64 part_rows = part * in.count * shape.heads;

    if (threadIdx.x < ROWS) {
        const u32 row = threadIdx.x;
        const Query query = query_of(shape, kv_head, first_row + row, in.count, first_position);
        tile.query[row] = query;
        tile.q_exp[row] = query.end > 0 ? in.q_exp[rows + query.row] : 0;
        tile.max[row] = NO_MAX;
        tile.sum[row] = 0.0f;
    }
    __syncthreads();
    const u32 first_seen = shape.first_key(first_position + first_row / group) / BLOCK;
    const u32 first_block = in.first_block + slot * in.slot_blocks;
    const u32 end_block = least(first_block + in.slot_blocks, div_ceil(end_key, BLOCK));
    for (u32 block = greatest(first_block, first_seen); block < end_block; block++) {
        const u32 first_key = block * BLOCK;
        forward_block<CAPPED>(tile, in, in.keys(sequence, block, kv_head), first_key,
                                      least(BLOCK, end_key - first_key), in.q + rows * shape.dim,
                                      part_out + part_rows * shape.dim);
    }
    __syncthreads();
    if (threadIdx.x < ROWS && tile.query[threadIdx.x].end > 0) {
        const u64 row = part_rows + tile.query[threadIdx.x].row;
        part_max[row] = tile.max[threadIdx.x];
        part_sum[row] = tile.sum[threadIdx.x];
    }
}

#define FORWARD_PARAMETERS(CODE)                                                                 \
    const i16 *q, const i32 *q_exp, const CODE *k, const i32 *k_exp, const CODE *v,              \
        const i32 *v_exp, const u64 *pages, u32 heads, u32 kv_heads, u32 dim, u32 window,        \
        f32 inward, f32 outward, i32 limit, u32 tokens, u32 first_sequence, u32 first_token,     \
        u32 count, u32 first_position, u32 first_block, u32 slot_blocks, u32 slots,              \
        f32 *part_out, i32 *part_max, f32 *part_sum
#define FORWARD_ARGUMENTS(CODE)                                                                 \
    Forward<CODE>{q,                                                                            \
                  q_exp,                                                                        \
                  {k, k_exp, v, v_exp},                                                         \
                  pages,                                                                        \
                  {heads, kv_heads, dim, window},                                               \
                  {inward, outward},                                                            \
                  limit,                                                                        \
                  tokens,                                                                       \
                  first_sequence,                                                               \
                  first_token,                                                                  \
                  count,                                                                        \
                  first_position,                                                               \
                  first_block,                                                                  \
                  slot_blocks,                                                                  \
                  slots},                                                                       \
        part_out, part_max, part_sum

// Grid: tiles of 32 (token, head of the group) times sequences times slots; key heads.
// Codes of one digit, |q| <= 127.
KERNEL(256) attention_forward_1(FORWARD_PARAMETERS(i16)) {
    forward<1, 1, false>(FORWARD_ARGUMENTS(i16));
}

// Codes of two digits.
KERNEL(256) attention_forward_2(FORWARD_PARAMETERS(i16)) {
    forward<2, 2, false>(FORWARD_ARGUMENTS(i16));
}

// Codes of two digits or of one, scores under a cap.
KERNEL(256) attention_forward_capped(FORWARD_PARAMETERS(i16)) {
    forward<2, 2, true>(FORWARD_ARGUMENTS(i16));
}

// Queries of two digits or of one, keys and values in pages of bytes: one digit.
KERNEL(256) attention_forward_bytes(FORWARD_PARAMETERS(i8)) {
    forward<2, 1, false>(FORWARD_ARGUMENTS(i8));
}

// The same, scores under a cap.
KERNEL(256) attention_forward_bytes_capped(FORWARD_PARAMETERS(i8)) {
    forward<2, 1, true>(FORWARD_ARGUMENTS(i8));
}

// A softmax over all keys, before its last step: out = numerator * keep / sum.
struct SoftmaxEnd {
    i32 max;
    f32 sum;
    f32 keep;
};

// Adds the sink of the query's head, one more key without a value, where there is one.
DEVICE SoftmaxEnd end_of(i32 max, f32 sum, const f32 *sink) {
    if (sink == nullptr) return {max == NO_MAX ? 0 : max, sum, 1.0f};
    const f32 score = rn::mul(*sink, LOG2_E);
    const i32 all = greatest(max, ceil_to_int(score));
    const f32 keep = max == NO_MAX ? 1.0f : rescale(max, all);
    const f32 own = exp2_of(rn::sub(score, __int2float_rn(all)));
    return {all, rn::add(rn::mul(sum, keep), own), keep};
}

// Merges the slots of each query, adds the sinks [heads] unless they are null, and divides.
// part_out [slots, sequences, count, heads, dim] (with one slot it may be `out` itself), part_max
// and part_sum [slots, sequences, count, heads]. A grid of any size.
KERNEL(256) attention_merge(const f32 *part_out, const i32 *part_max, const f32 *part_sum,
                            const f32 *sinks, f32 *out, i32 *max, f32 *sum, u32 heads, u32 dim,
                            u32 tokens, u32 first_sequence, u32 sequences, u32 first_token,
                            u32 count, u32 first_block, u32 slot_blocks, u32 slots) {
    const u64 rows = static_cast<u64>(sequences) * count * heads;
    for_each_of(rows * dim, [&](u64 i) {
        const u64 row = i / dim, feature = i % dim;
        i32 chunk_max = NO_MAX, total_max = NO_MAX;
        f32 chunk_sum = 0.0f, chunk_out = 0.0f, total_sum = 0.0f, total_out = 0.0f;
        const auto end_chunk = [&]() {
            const Merge merge = merge_of(total_max, chunk_max);
            total_sum = merge.of(total_sum, chunk_sum);
            total_out = merge.of(total_out, chunk_out);
            chunk_max = NO_MAX;
        };
        for (u32 slot = 0; slot < slots; slot++) {
            if ((first_block + slot * slot_blocks) % CHUNK_BLOCKS == 0) end_chunk();
            const u64 at = slot * rows + row;
            const i32 later = part_max[at];
            if (later == NO_MAX) continue;
            const Merge merge = merge_of(chunk_max, later);
            chunk_sum = merge.of(chunk_sum, part_sum[at]);
            chunk_out = merge.of(chunk_out, part_out[at * dim + feature]);
        }
        end_chunk();
        const u64 in_sequence = static_cast<u64>(count) * heads;
        const u64 first = (first_sequence + row / in_sequence) * tokens + first_token;
        const u64 target = first * heads + row % in_sequence;
        const f32 *sink = sinks == nullptr ? nullptr : sinks + row % heads;
        const SoftmaxEnd end = end_of(total_max, total_sum, sink);
        out[target * dim + feature] = rn::div(rn::mul(total_out, end.keep), end.sum);
        if (feature == 0) {
            max[target] = end.max;
            sum[target] = end.sum;
        }
    });
}

// Puts the codes of new tokens behind the first `first` of a cache: k, v [tokens, kv_heads, dim],
// into pages of codes of type Code.
template <typename Code>
DEVICE void append(const u64 *pages, const i16 *k, const i32 *k_exp, const i16 *v, const i32 *v_exp,
                   u32 kv_heads, u32 dim, u32 first, u32 tokens) {
    const u64 width = static_cast<u64>(kv_heads) * dim;
    for_each_of(tokens * width, [&](u64 i) {
        const u32 token = first + static_cast<u32>(i / width);
        Code *page = reinterpret_cast<Code *>(pages[token / BLOCK * 2]);
        const u64 at = token % BLOCK * width + i % width;
        page[at] = static_cast<Code>(k[i]);
        page[BLOCK * width + at] = static_cast<Code>(v[i]);
    });
    for_each_of(static_cast<u64>(tokens) * kv_heads, [&](u64 i) {
        const u32 token = first + static_cast<u32>(i / kv_heads);
        i32 *page = reinterpret_cast<i32 *>(pages[token / BLOCK * 2 + 1]);
        const u64 at = static_cast<u64>(token % BLOCK) * kv_heads + i % kv_heads;
        page[at] = k_exp[i];
        page[BLOCK * kv_heads + at] = v_exp[i];
    });
}

#define APPEND_PARAMETERS                                                                       \
    const u64 *pages, const i16 *k, const i32 *k_exp, const i16 *v, const i32 *v_exp,            \
        u32 kv_heads, u32 dim, u32 first, u32 tokens
#define APPEND_ARGUMENTS pages, k, k_exp, v, v_exp, kv_heads, dim, first, tokens

// A grid of any size.
KERNEL(256) attention_append(APPEND_PARAMETERS) {
    append<i16>(APPEND_ARGUMENTS);
}

// Codes of 8 bits, into pages of bytes. A grid of any size.
KERNEL(256) attention_append_bytes(APPEND_PARAMETERS) {
    append<i8>(APPEND_ARGUMENTS);
}
