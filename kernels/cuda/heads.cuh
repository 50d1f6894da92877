// Which queries stand in which row of a tile, and which keys they see.
#pragma once
#include "base.cuh"

// Heads and masks of an attention layer.
struct Heads {
    u32 heads;
    u32 kv_heads;
    u32 dim;
    // A query sees itself and at most this many minus one keys before it; 2^32 - 1 where it sees
    // all.
    u32 window;

    // Query heads that share a key head.
    u32 group() const { return heads / kv_heads; }

    // The first key that the query at `position` sees.
    u32 first_key(u32 position) const {
        const u32 keys = position + 1;
        return keys > window ? keys - window : 0;
    }
};

// A query of one head, in the row of a tile.
struct Query {
    // Its row in [tokens of the run, heads].
    u64 row;
    // It sees keys [first, end): none where the row of the tile lies behind the end of the run.
    u32 first;
    u32 end;

    bool sees(u32 key) const { return key >= first && key < end; }

    // Whether it sees any of keys [block, block + count).
    bool sees_any(u32 block, u32 count) const {
        return greatest(first, block) < least(end, block + count);
    }
};

// Row `index` among the queries of one key head in a run of tokens from `first_position` on: tokens
// in order, the heads of the group within a token. So the queries of a tile share their keys even
// if there is only one token.
DEVICE Query query_of(const Heads &shape, u32 kv_head, u32 index, u32 tokens, u32 first_position) {
    const u32 group = shape.group(), token = index / group;
    if (token >= tokens) return {0, 1, 0};
    const u64 row = static_cast<u64>(token) * shape.heads + kv_head * group + index % group;
    const u32 position = first_position + token;
    return {row, shape.first_key(position), position + 1};
}
