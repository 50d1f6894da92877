// The next token from logits, in one block. Twin of kernels/src/ops/sample.rs.
#include "block_sum.cuh"
#include "math.cuh"

// Threads of a block that samples.
#define THREADS 1024
#define WARPS (THREADS / 32)
// Values of one digit of the sort.
#define DIGITS 256

// The token of the largest logit, the lowest id among equals; NaN is ignored, unless it is the
// first logit.
KERNEL(1024) sample_greedy(const f32 *logits, u32 *token, u32 vocab) {
    __shared__ f32 values[WARPS];
    __shared__ u32 ids[WARPS];
    f32 value = logits[0];
    u32 id = 0;
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        if (logits[i] > value) {
            value = logits[i];
            id = i;
        }
    }
    for (u32 width = 16; width > 0; width /= 2) {
        const f32 other = __shfl_xor_sync(WARP, value, width);
        const u32 other_id = __shfl_xor_sync(WARP, id, width);
        const bool better = other > value || (other == value && other_id < id);
        value = better ? other : value;
        id = better ? other_id : id;
    }
    if (lane_of_warp() == 0) {
        values[warp_of_block()] = value;
        ids[warp_of_block()] = id;
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (u32 warp = 1; warp < blockDim.x / 32; warp++) {
        const f32 other = values[warp];
        if (other > value || (other == value && ids[warp] < id)) {
            value = other;
            id = ids[warp];
        }
    }
    *token = id;
}

// Candidates: the inverted bits of a probability, which rise as it falls, and its token.
struct Candidates {
    u32 *keys;
    u32 *ids;
};

DEVICE f32 probability_of(Candidates candidates, u64 i) { return from_bits(~candidates.keys[i]); }

// The lanes of this warp that hold a candidate with the same digit.
DEVICE u32 peers_of(u32 digit, bool in) {
    u32 peers = __ballot_sync(WARP, in);
    for (u32 bit = 0; bit < 8; bit++) {
        const bool set = (digit >> bit & 1) != 0;
        const u32 with = __ballot_sync(WARP, set);
        peers &= set ? with : ~with;
    }
    return peers;
}

// One stable pass of a radix sort: by the digit of the keys at `shift`. Warps take runs of
// candidates in order; `places` [WARPS][DIGITS] is shared memory. All threads of the block call it.
DEVICE void sort_pass(Candidates from, Candidates to, u32 count, u32 shift, u32 *places) {
    const u32 lane = lane_of_warp();
    u32 *mine = places + warp_of_block() * DIGITS;
    const u32 run = div_ceil(div_ceil(count, static_cast<u32>(WARPS)), 32u) * 32;
    const u32 start = warp_of_block() * run;
    const u32 end = least(count, start + run);
    for (u32 d = lane; d < DIGITS; d += 32) mine[d] = 0;
    __syncwarp();
    for (u32 base = start; base < end; base += 32) {
        const bool in = base + lane < end;
        const u32 digit = in ? from.keys[base + lane] >> shift & 255 : 0;
        const u32 peers = peers_of(digit, in);
        if (in && (peers & ((1u << lane) - 1)) == 0) mine[digit] += __popc(peers);
        __syncwarp();
    }
    __syncthreads();
    // Counts become places: all lower digits come first, then the same digit in earlier warps.
    u32 total = 0;
    if (threadIdx.x < DIGITS) {
        for (u32 w = 0; w < WARPS; w++) {
            const u32 here = places[w * DIGITS + threadIdx.x];
            places[w * DIGITS + threadIdx.x] = total;
            total += here;
        }
    }
    __shared__ u32 totals[DIGITS];
    if (threadIdx.x < DIGITS) totals[threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.x < DIGITS) {
        u32 below = 0;
        for (u32 d = 0; d < threadIdx.x; d++) below += totals[d];
        for (u32 w = 0; w < WARPS; w++) places[w * DIGITS + threadIdx.x] += below;
    }
    __syncthreads();
    for (u32 base = start; base < end; base += 32) {
        const bool in = base + lane < end;
        const u32 key = in ? from.keys[base + lane] : 0;
        const u32 digit = key >> shift & 255;
        const u32 peers = peers_of(digit, in);
        const u32 earlier = peers & ((1u << lane) - 1);
        const u32 place = mine[digit] + __popc(earlier);
        __syncwarp();
        if (in) {
            to.keys[place] = key;
            to.ids[place] = from.ids[base + lane];
            if (earlier == 0) mine[digit] += __popc(peers);
        }
        __syncwarp();
    }
    __syncthreads();
}

// The first of `count` candidates with which the serial sum of probabilities reaches `limit`, or
// passes it; `count` where none does. All threads of the block call it and get the index.
DEVICE u32 first_reaching(Candidates sorted, u32 count, f32 limit, bool passes, f32 *staged) {
    __shared__ u32 found;
    if (threadIdx.x == 0) found = count;
    f32 sum = 0.0f;
    for (u32 base = 0; base < count; base += blockDim.x) {
        const u32 i = base + threadIdx.x;
        if (i < count) staged[threadIdx.x] = probability_of(sorted, i);
        __syncthreads();
        if (threadIdx.x == 0) {
            const u32 here = least(blockDim.x, count - base);
            for (u32 j = 0; j < here && found == count; j++) {
                sum = rn::add(sum, staged[j]);
                if (passes ? sum > limit : sum >= limit) found = base + j;
            }
        }
        __syncthreads();
        if (found != count) break;
    }
    __syncthreads();
    const u32 index = found;
    // The next call sets it anew.
    __syncthreads();
    return index;
}

// Draws a token: candidates in the order (probability, token id), cut to the first `top_k`, then to
// those that reach `top_p` of their mass; `unit` in [0, 1) picks by the serial sum. `scratch` holds
// 4 * vocab elements. NUMERICS.md, section 6.
KERNEL(1024) sample_draw(const f32 *logits, u32 *scratch, u32 *token, u32 vocab, f32 temperature,
                         u32 top_k, f32 top_p, f32 unit) {
    __shared__ u32 places[WARPS * DIGITS];
    __shared__ f32 staged[THREADS];
    Candidates sorted = {scratch, scratch + vocab};
    Candidates other = {scratch + 2ull * vocab, scratch + 3ull * vocab};
    f32 largest = NEG_INFINITY;
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        const f32 score = rn::mul(rn::div(logits[i], temperature), LOG2_E);
        largest = score > largest ? score : largest;
    }
    const f32 max = __int2float_rn(ceil_to_int(block_max(largest, staged)));
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        const f32 score = rn::mul(rn::div(logits[i], temperature), LOG2_E);
        sorted.keys[i] = ~bits_of(exp2_of(rn::sub(score, max)));
        sorted.ids[i] = i;
    }
    __syncthreads();
    for (u32 shift = 0; shift < 32; shift += 16) {
        sort_pass(sorted, other, vocab, shift, places);
        sort_pass(other, sorted, vocab, shift + 8, places);
    }
    const u32 count = top_k > 0 ? least(top_k, vocab) : vocab;
    const auto add = [&](f32 lane, u64 i) { return rn::add(lane, probability_of(sorted, i)); };
    const f32 total = block_fixed_sum(count, staged, add);
    __syncthreads();
    const u32 reached = first_reaching(sorted, count, rn::mul(top_p, total), false, staged);
    const u32 kept = reached < count ? reached + 1 : count;
    const f32 ticket = rn::mul(unit, block_fixed_sum(kept, staged, add));
    __syncthreads();
    const u32 drawn = first_reaching(sorted, kept, ticket, true, staged);
    if (threadIdx.x == 0) *token = sorted.ids[drawn < kept ? drawn : kept - 1];
}
