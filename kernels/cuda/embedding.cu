// Rows of a table by token id, and their gradient. Twin of kernels/src/reference/embedding.rs.
#include "math.cuh"
#include "spread.cuh"

// No token follows; no target.
#define NONE 0xffffffffu

// out [tokens, hidden] = the rows of table [vocab, hidden] at ids. An id outside of the table gives
// NaN, which is caught where results are checked.
KERNEL(256) embedding_rows(const f32 *table, const u32 *ids, f32 *out, u32 tokens, u32 hidden,
                           u32 vocab) {
    for_each_in(tokens, hidden, [&](u32 token, u32 c) {
        const u32 id = ids[token];
        const f32 value = id < vocab ? table[static_cast<u64>(id) * hidden + c] : QUIET_NAN;
        out[static_cast<u64>(token) * hidden + c] = value;
    });
}

// Chains the tokens of one id by rising position: next[t] is the next token with t's id or NONE,
// and follows[t] (zero before) is 1 where t has an earlier one.
KERNEL(256) embedding_chains(const u32 *ids, u32 *next, u32 *follows, u32 tokens) {
    for_each_of(tokens, [&](u64 token) {
        const u32 id = ids[token];
        u32 later = static_cast<u32>(token) + 1;
        while (later < tokens && ids[later] != id) later++;
        const bool found = later < tokens;
        next[token] = found ? later : NONE;
        // Only the nearest earlier token of the same id writes here.
        if (found) follows[later] = 1;
    });
}

// gradient [vocab, hidden], zero before: each row adds the rows of dy [tokens, hidden] of its
// tokens by rising position. The first token of an id walks the chain of the others.
KERNEL(256) embedding_add(const f32 *dy, const u32 *ids, const u32 *next, const u32 *follows,
                          f32 *gradient, u32 tokens, u32 hidden, u32 vocab) {
    for_each_in(tokens, hidden, [&](u32 token, u32 c) {
        if (follows[token] != 0 || ids[token] >= vocab) return;
        f32 sum = 0.0f;
        for (u32 t = token; t != NONE; t = next[t]) {
            sum = rn::add(sum, dy[static_cast<u64>(t) * hidden + c]);
        }
        gradient[static_cast<u64>(ids[token]) * hidden + c] = sum;
    });
}

// dw [vocab, hidden] -= the one-hot part: each row takes off the rows of x [tokens, hidden] of its
// tokens by rising position, times their shares [tokens] where these are not null. A target of NONE
// takes nothing. With a share of 1 the fma gives the bits of the plain difference.
KERNEL(256) embedding_take(const f32 *x, const f32 *shares, const u32 *targets, const u32 *next,
                           const u32 *follows, f32 *dw, u32 tokens, u32 hidden, u32 vocab) {
    for_each_in(tokens, hidden, [&](u32 token, u32 c) {
        if (follows[token] != 0 || targets[token] >= vocab) return;
        const u64 at = static_cast<u64>(targets[token]) * hidden + c;
        f32 value = dw[at];
        for (u32 t = token; t != NONE; t = next[t]) {
            const f32 share = shares != nullptr ? shares[t] : 1.0f;
            value = rn::fma(-share, x[static_cast<u64>(t) * hidden + c], value);
        }
        dw[at] = value;
    });
}
