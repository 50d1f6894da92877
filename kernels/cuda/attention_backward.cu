// Attention, backward: NUMERICS.md, section 5; twin of kernels/src/cpu/attention/backward.rs.
//
//     p = exp2(t - max) * inverse    dp = dO . v    ds = p * (dp - delta)
//     under a cap: t = outward * h, h = tanh(score * inward), ds = p * (1 - h^2) * (dp - delta)
//     dq += code(ds * 2^ek) k    over blocks of 128 keys in order, then times the scale
//     dk += code(ds * 2^eq) q    over the heads of the group, then blocks of 128 queries in order,
//                                then times ln 2
//     dv += code(p * 2^edO) dO   in the same order
//
// q, dO and dq are [sequences, tokens, heads, dim]; k, v, dk and dv [sequences, tokens, kv_heads,
// dim]; max, inverse and delta [sequences, tokens, heads]. Every element of a gradient has one
// thread, which adds in the order of the contract; no sum is split.
#include "attention.cuh"
#include "heads.cuh"
#include "spread.cuh"
#include "sum.cuh"

// delta = sum(dO * O) and inverse = 1 / sum of each row. A warp takes a row; a grid of any size.
KERNEL(256) attention_delta(const f32 *d_out, const f32 *out, const f32 *sum, f32 *delta,
                            f32 *inverse, u64 rows, u32 dim) {
    const u64 warps = static_cast<u64>(gridDim.x) * (THREADS / 32);
    u64 row = static_cast<u64>(blockIdx.x) * (THREADS / 32) + warp_of_block();
    for (; row < rows; row += warps) {
        const f32 own = dot_of(d_out + row * dim, out + row * dim, dim);
        if (lane_of_warp() != 0) continue;
        delta[row] = own;
        inverse[row] = rn::div(1.0f, sum[row]);
    }
}

// What each query adds to the gradients of the sinks [heads]: terms, max, inverse and delta are
// [rows], a row a (token, head). A grid of any size.
KERNEL(256) attention_sink_terms(const f32 *sinks, const i32 *max, const f32 *inverse,
                                 const f32 *delta, f32 *terms, u64 rows, u32 heads) {
    for_each_of(rows, [&](u64 row) {
        const f32 score = rn::mul(sinks[row % heads], LOG2_E);
        const f32 p = rn::mul(exp2_of(rn::sub(score, __int2float_rn(max[row]))), inverse[row]);
        terms[row] = -rn::mul(p, delta[row]);
    });
}

// What both kernels read.
struct Backward {
    const i16 *q;
    const i32 *q_exp;
    const i16 *k;
    const i32 *k_exp;
    const i16 *v;
    const i32 *v_exp;
    const i16 *d_out;
    const i32 *d_out_exp;
    const i32 *max;
    const f32 *inverse;
    const f32 *delta;
    Heads shape;
    // Read where scores are capped.
    ScoreCap cap;
    i32 limit;
    u32 tokens;
};

// What the gradient of the scores of one query needs.
struct QueryState {
    i32 q_exp;
    i32 d_out_exp;
    f32 max;
    f32 inverse;
    f32 delta;
};

DEVICE QueryState state_of(const Backward &in, u64 row) {
    return {in.q_exp[row], in.d_out_exp[row], __int2float_rn(in.max[row]), in.inverse[row],
            in.delta[row]};
}

DEVICE f32 probability(const QueryState &state, f32 score) {
    return rn::mul(exp2_of(rn::sub(score, state.max)), state.inverse);
}

// The probability of a score, and the same times the slope of the cap where CAPPED.
struct Probability {
    f32 p;
    f32 sloped;
};

template <bool CAPPED>
DEVICE Probability probability_of(const QueryState &state, const ScoreCap &cap, f32 score) {
    if constexpr (!CAPPED) {
        const f32 p = probability(state, score);
        return {p, p};
    }
    const f32 bent = cap.bent(score);
    const f32 p = probability(state, rn::mul(cap.outward, bent));
    return {p, rn::mul(p, rn::fma(-bent, bent, 1.0f))};
}

// Adds a product to an element of a gradient: from 0 where it is the first, times `factor` after
// the last.
DEVICE void accumulate(f32 &sum, f32 product, bool first, bool last, f32 factor) {
    const f32 value = rn::add(first ? 0.0f : sum, product);
    sum = last ? rn::mul(value, factor) : value;
}

// Shared memory of attention_dq.
template <u32 DIGITS> struct QueryTile {
    Stage<DIGITS, DIGITS> stage;
    CodedTile<DIGITS> ds;
    i32 k_exp[BLOCK];
    i32 v_exp[BLOCK];
    Query query[ROWS];
    QueryState state[ROWS];
};

// Adds to dq what the keys of one block give, of which there are `existing`, `count` of them seen
// by some query of the tile. `rows` and `keys` are the rows before the sequence and before the
// first key.
template <u32 DIGITS, bool CAPPED>
DEVICE void dq_block(QueryTile<DIGITS> &tile, const Backward &in, u32 first_key, u32 existing,
                     u32 count, u64 rows, u64 keys, f32 scale, f32 *dq) {
    const u32 dim = in.shape.dim, kv_heads = in.shape.kv_heads;
    const auto of_query = [&](const i16 *codes, u32 row) -> const i16 * {
        return tile.query[row].end > 0 ? codes + (rows + tile.query[row].row) * dim : nullptr;
    };
    const auto of_key = [&](const i16 *codes, u32 key) -> const i16 * {
        return key < count ? codes + (keys + key * kv_heads) * dim : nullptr;
    };
    if (threadIdx.x < BLOCK) {
        const u32 key = threadIdx.x;
        tile.k_exp[key] = key < existing ? in.k_exp[keys + key * kv_heads] : 0;
        tile.v_exp[key] = key < existing ? in.v_exp[keys + key * kv_heads] : 0;
    }
    f32 value[4][4];
    Sums<DIGITS, DIGITS, 4> sums;
    score_sums(sums, tile.stage, dim, [&](u32 row) { return of_query(in.q, row); },
               [&](u32 key) { return of_key(in.k, key); });
#pragma unroll
    for (u32 n = 0; n < 4; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const QueryState &state = tile.state[own_row(i / 2)];
            const i32 k_exp = tile.k_exp[own_column(n, i)];
            const f32 score = product_of(sums.total(n, i), state.q_exp, k_exp);
            value[n][i] = probability_of<CAPPED>(state, in.cap, score).sloped;
        }
    score_sums(sums, tile.stage, dim, [&](u32 row) { return of_query(in.d_out, row); },
               [&](u32 key) { return of_key(in.v, key); });
    // As in the reference, a row that sees any key of the block codes all of them, masked ones too.
    u32 counts = 0;
#pragma unroll
    for (u32 n = 0; n < 4; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = own_row(i / 2), column = own_column(n, i);
            const QueryState &state = tile.state[row];
            const f32 dp = product_of(sums.total(n, i), state.d_out_exp, tile.v_exp[column]);
            const f32 ds = rn::mul(value[n][i], rn::sub(dp, state.delta));
            value[n][i] = tile.query[row].sees(first_key + column) ? ds : 0.0f;
            if (column < existing && tile.query[row].sees_any(first_key, BLOCK))
                counts |= 1u << (4 * n + i);
        }
    i32 exponent[2];
    code_tile(tile.ds, exponent, value, tile.k_exp, in.limit, counts);
    feature_sums(tile.stage, tile.ds, dim, count, [&](u32 key) { return of_key(in.k, key); },
                 [&](u32 half, u32 feature, i64 sum) {
                     const Query &query = tile.query[own_row(half)];
                     if (!query.sees_any(first_key, BLOCK)) return;
                     const bool first = first_key <= query.first;
                     const bool last = query.end <= first_key + BLOCK;
                     f32 &target = dq[(rows + query.row) * dim + feature];
                     accumulate(target, product_of(sum, exponent[half], 0), first, last, scale);
                 });
}

template <u32 DIGITS, bool CAPPED>
DEVICE void all_dq(const Backward &in, f32 scale, f32 *dq) {
    __shared__ QueryTile<DIGITS> tile;
    const Heads &shape = in.shape;
    const u32 kv_head = blockIdx.y, group = shape.group();
    // The last tiles have the most keys: they start first.
    const u32 tiles = div_ceil(in.tokens * group, ROWS), sequences = gridDim.x / tiles;
    const u32 first_row = (tiles - 1 - blockIdx.x / sequences) * ROWS;
    const u32 end_key = least((first_row + ROWS - 1) / group, in.tokens - 1) + 1;
    const u64 tokens_before = static_cast<u64>(blockIdx.x % sequences) * in.tokens;
    const u64 rows = tokens_before * shape.heads;
    if (threadIdx.x < ROWS) {
        const Query query = query_of(shape, kv_head, first_row + threadIdx.x, in.tokens, 0);
        tile.query[threadIdx.x] = query;
        // A row beyond the end reads the state of the sequence's first row, but sees no keys.
        tile.state[threadIdx.x] = state_of(in, rows + query.row);
    }
    __syncthreads();
    const u32 first_block = shape.first_key(first_row / group) / BLOCK;
    for (u32 block = first_block; block * BLOCK < end_key; block++) {
        const u32 first_key = block * BLOCK;
        const u64 keys = (tokens_before + first_key) * shape.kv_heads + kv_head;
        dq_block<DIGITS, CAPPED>(tile, in, first_key, least(BLOCK, in.tokens - first_key),
                                 least(BLOCK, end_key - first_key), rows, keys, scale, dq);
    }
}

// Shared memory of attention_dk_dv.
template <u32 DIGITS> struct KeyTile {
    Stage<DIGITS, DIGITS> stage;
    CodedTile<DIGITS> coded;
    i32 k_exp[ROWS];
    i32 v_exp[ROWS];
    i32 q_exp[BLOCK];
    i32 d_out_exp[BLOCK];
    QueryState state[BLOCK];
};

// One tile of keys and one block of queries of one head.
struct Meeting {
    u32 first_key;
    // Keys of the tile.
    u32 keys;
    u32 first_query;
    // Queries of the block.
    u32 queries;
    // Rows in k, from the first key on, and in q, from the first query on.
    u64 key_row;
    u64 query_row;
    // Whether the head is the first and the last of its group.
    bool first_head;
    bool last_head;

    // Whether any query of the block sees the key in row `row` of the tile.
    bool sees_any(u32 row, u32 window) const {
        const u32 key = first_key + row;
        return row < keys && greatest(first_query, key) - key < window;
    }

    bool sees(u32 row, u32 column, u32 window) const {
        const u32 key = first_key + row, query = first_query + column;
        return row < keys && column < queries && query >= key && query - key < window;
    }
};

// p and ds of a tile of keys (rows) and a block of queries (columns), 0 where masked.
template <u32 DIGITS, bool CAPPED>
DEVICE void take_gradients(KeyTile<DIGITS> &tile, const Backward &in, const Meeting &at,
                           f32 (&p)[4][4], f32 (&ds)[4][4]) {
    const u32 dim = in.shape.dim, heads = in.shape.heads, kv_heads = in.shape.kv_heads;
    const auto of_key = [&](const i16 *codes, u32 key) -> const i16 * {
        return key < at.keys ? codes + (at.key_row + key * kv_heads) * dim : nullptr;
    };
    const auto of_query = [&](const i16 *codes, u32 query) -> const i16 * {
        return query < at.queries ? codes + (at.query_row + query * heads) * dim : nullptr;
    };
    Sums<DIGITS, DIGITS, 4> sums;
    score_sums(sums, tile.stage, dim, [&](u32 row) { return of_key(in.k, row); },
               [&](u32 column) { return of_query(in.q, column); });
#pragma unroll
    for (u32 n = 0; n < 4; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const QueryState &state = tile.state[own_column(n, i)];
            const i32 k_exp = tile.k_exp[own_row(i / 2)];
            const f32 score = product_of(sums.total(n, i), state.q_exp, k_exp);
            const Probability own = probability_of<CAPPED>(state, in.cap, score);
            p[n][i] = own.p;
            if constexpr (CAPPED) ds[n][i] = own.sloped;
        }
    score_sums(sums, tile.stage, dim, [&](u32 row) { return of_key(in.v, row); },
               [&](u32 column) { return of_query(in.d_out, column); });
#pragma unroll
    for (u32 n = 0; n < 4; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 row = own_row(i / 2), column = own_column(n, i);
            const QueryState &state = tile.state[column];
            const f32 dp = product_of(sums.total(n, i), state.d_out_exp, tile.v_exp[row]);
            const bool seen = at.sees(row, column, in.shape.window);
            const f32 sloped = CAPPED ? ds[n][i] : p[n][i];
            ds[n][i] = seen ? rn::mul(sloped, rn::sub(dp, state.delta)) : 0.0f;
            p[n][i] = seen ? p[n][i] : 0.0f;
        }
}

// Adds to `gradient` what the queries of a block give: code(value * 2^fold) x `codes`.
template <u32 DIGITS>
DEVICE void add_by_key(KeyTile<DIGITS> &tile, const Backward &in, const Meeting &at,
                       const f32 (&value)[4][4], const i32 *fold, const i16 *codes, f32 factor,
                       f32 *gradient) {
    const u32 dim = in.shape.dim, window = in.shape.window;
    // As in the reference, a key that any query of the block sees is coded over all of them.
    u32 counts = 0;
#pragma unroll
    for (u32 n = 0; n < 4; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++)
            if (own_column(n, i) < at.queries && at.sees_any(own_row(i / 2), window))
                counts |= 1u << (4 * n + i);
    i32 exponent[2];
    code_tile(tile.coded, exponent, value, fold, in.limit, counts);
    const auto of_query = [&](u32 query) -> const i16 * {
        return query < at.queries ? codes + (at.query_row + query * in.shape.heads) * dim : nullptr;
    };
    feature_sums(tile.stage, tile.coded, dim, at.queries, of_query,
                 [&](u32 half, u32 feature, i64 sum) {
                     const u32 row = own_row(half), key = at.first_key + row;
                     if (!at.sees_any(row, window)) return;
                     // The last query that sees the key.
                     const u32 end = in.tokens - key <= window ? in.tokens : key + window;
                     const bool first = at.first_head && at.first_query <= key;
                     const bool last = at.last_head && end <= at.first_query + BLOCK;
                     f32 &target = gradient[(at.key_row + row * in.shape.kv_heads) * dim + feature];
                     accumulate(target, product_of(sum, exponent[half], 0), first, last, factor);
                 });
}

template <u32 DIGITS, bool CAPPED>
DEVICE void all_dk_dv(const Backward &in, f32 *dk, f32 *dv) {
    __shared__ KeyTile<DIGITS> tile;
    const Heads &shape = in.shape;
    const u32 kv_head = blockIdx.y, group = shape.group();
    // The first keys have the most queries: they start first.
    const u32 sequences = gridDim.x / div_ceil(in.tokens, ROWS);
    const u32 first_key = blockIdx.x / sequences * ROWS;
    const u32 keys = least(ROWS, in.tokens - first_key), last_key = first_key + keys - 1;
    const u64 tokens_before = static_cast<u64>(blockIdx.x % sequences) * in.tokens;
    const u64 key_row = (tokens_before + first_key) * shape.kv_heads + kv_head;
    if (threadIdx.x < ROWS) {
        const u32 key = threadIdx.x;
        tile.k_exp[key] = key < keys ? in.k_exp[key_row + key * shape.kv_heads] : 0;
        tile.v_exp[key] = key < keys ? in.v_exp[key_row + key * shape.kv_heads] : 0;
    }
    for (u32 member = 0; member < group; member++) {
        for (u32 first = first_key / BLOCK * BLOCK; first < in.tokens; first += BLOCK) {
            if (first > last_key && first - last_key >= shape.window) break;
            const u32 queries = least(BLOCK, in.tokens - first);
            const u64 query_row = (tokens_before + first) * shape.heads + kv_head * group + member;
            const Meeting at = {first_key, keys,      first,       queries,
                                key_row,   query_row, member == 0, member == group - 1};
            if (threadIdx.x < BLOCK) {
                const u32 query = threadIdx.x;
                QueryState state = {0, 0, 0.0f, 0.0f, 0.0f};
                if (query < queries) state = state_of(in, query_row + query * shape.heads);
                tile.state[query] = state;
                tile.q_exp[query] = state.q_exp;
                tile.d_out_exp[query] = state.d_out_exp;
            }
            f32 p[4][4], ds[4][4];
            take_gradients<DIGITS, CAPPED>(tile, in, at, p, ds);
            add_by_key(tile, in, at, p, tile.d_out_exp, in.d_out, 1.0f, dv);
            add_by_key(tile, in, at, ds, tile.q_exp, in.q, LN_2, dk);
        }
    }
}

#define BACKWARD_PARAMETERS                                                                      \
    const i16 *q, const i32 *q_exp, const i16 *k, const i32 *k_exp, const i16 *v,                \
        const i32 *v_exp, const i16 *d_out, const i32 *d_out_exp, const i32 *max,                \
        const f32 *inverse, const f32 *delta, u32 heads, u32 kv_heads, u32 dim, u32 window,      \
        f32 inward, f32 outward, i32 limit, u32 tokens
#define BACKWARD_ARGUMENTS                                                                      \
    {q,         q_exp, k,       k_exp, v,     v_exp,                                            \
     d_out,     d_out_exp,                                                                      \
     max,       inverse, delta, {heads, kv_heads, dim, window},                                 \
     {inward, outward}, limit, tokens}

// Grid: tiles of 32 (token, head of the group) times sequences; key heads.
// Codes of one digit, |q| <= 127.
KERNEL(256) attention_dq_1(BACKWARD_PARAMETERS, f32 scale, f32 *dq) {
    all_dq<1, false>(BACKWARD_ARGUMENTS, scale, dq);
}

// Codes of two digits.
KERNEL(256) attention_dq_2(BACKWARD_PARAMETERS, f32 scale, f32 *dq) {
    all_dq<2, false>(BACKWARD_ARGUMENTS, scale, dq);
}

// Codes of two digits or of one, scores under a cap.
KERNEL(256) attention_dq_capped(BACKWARD_PARAMETERS, f32 scale, f32 *dq) {
    all_dq<2, true>(BACKWARD_ARGUMENTS, scale, dq);
}

// Grid: tiles of 32 keys times sequences; key heads.
// Codes of one digit, |q| <= 127.
KERNEL(256) attention_dk_dv_1(BACKWARD_PARAMETERS, f32 *dk, f32 *dv) {
    all_dk_dv<1, false>(BACKWARD_ARGUMENTS, dk, dv);
}

// Codes of two digits.
KERNEL(256) attention_dk_dv_2(BACKWARD_PARAMETERS, f32 *dk, f32 *dv) {
    all_dk_dv<2, false>(BACKWARD_ARGUMENTS, dk, dv);
}

// Codes of two digits or of one, scores under a cap.
KERNEL(256) attention_dk_dv_capped(BACKWARD_PARAMETERS, f32 *dk, f32 *dv) {
    all_dk_dv<2, true>(BACKWARD_ARGUMENTS, dk, dv);
}
