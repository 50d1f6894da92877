// BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2020) in derive-key mode over (prefix ||
// tensor), the bytes little-endian as they lie in memory. Chunks are hashed in parallel, then
// merged by the tree.
#include "base.cuh"

#define CHUNK_BYTES 1024
#define BLOCK_BYTES 64
// Chaining values that one block of the tree takes in.
#define LEAVES 256

#define CHUNK_START 1u
#define CHUNK_END 2u
#define PARENT 4u
#define ROOT 8u
#define DERIVE_KEY_MATERIAL 64u

// A chaining value, or a key.
struct Words8 {
    u32 w[8];
};

DEVICE Words8 words_at(const u32 *from) {
    Words8 words;
#pragma unroll
    for (u32 i = 0; i < 8; i++) words.w[i] = from[i];
    return words;
}

DEVICE u32 rotate_right(u32 x, u32 n) { return x >> n | x << (32 - n); }

DEVICE void quarter(u32 &a, u32 &b, u32 &c, u32 &d, u32 x, u32 y) {
    a = a + b + x;
    d = rotate_right(d ^ a, 16);
    c = c + d;
    b = rotate_right(b ^ c, 12);
    a = a + b + y;
    d = rotate_right(d ^ a, 8);
    c = c + d;
    b = rotate_right(b ^ c, 7);
}

// The words of a message in the order of the next round.
DEVICE void permute(u32 m[16]) {
    const u32 next[16] = {m[2],  m[6], m[3],  m[10], m[7], m[0],  m[4],  m[13],
                          m[1], m[11], m[12], m[5],  m[9], m[14], m[15], m[8]};
#pragma unroll
    for (u32 i = 0; i < 16; i++) m[i] = next[i];
}

// The chaining value after a block of `bytes` bytes; uses up the message.
DEVICE Words8 compress(const Words8 &cv, u32 m[16], u64 counter, u32 bytes, u32 flags) {
    u32 s[16] = {cv.w[0],     cv.w[1],     cv.w[2],     cv.w[3],
                 cv.w[4],     cv.w[5],     cv.w[6],     cv.w[7],
                 0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                 static_cast<u32>(counter), static_cast<u32>(counter >> 32), bytes, flags};
#pragma unroll
    for (u32 round = 0; round < 7; round++) {
        quarter(s[0], s[4], s[8], s[12], m[0], m[1]);
        quarter(s[1], s[5], s[9], s[13], m[2], m[3]);
        quarter(s[2], s[6], s[10], s[14], m[4], m[5]);
        quarter(s[3], s[7], s[11], s[15], m[6], m[7]);
        quarter(s[0], s[5], s[10], s[15], m[8], m[9]);
        quarter(s[1], s[6], s[11], s[12], m[10], m[11]);
        quarter(s[2], s[7], s[8], s[13], m[12], m[13]);
        quarter(s[3], s[4], s[9], s[14], m[14], m[15]);
        permute(m);
    }
    Words8 out;
#pragma unroll
    for (u32 i = 0; i < 8; i++) out.w[i] = s[i] ^ s[i + 8];
    return out;
}

// Where the input lies: prefix bytes, then the bytes of `words` words of a tensor.
struct Input {
    const u8 *prefix;
    u64 prefix_bytes;
    const u32 *tensor;
    u64 bytes; // of prefix and tensor
};

// One byte of the input; 0 after its end, as the last block is padded.
DEVICE u32 byte_at(const Input &input, u64 at) {
    if (at < input.prefix_bytes) return input.prefix[at];
    if (at >= input.bytes) return 0;
    const u64 in_tensor = at - input.prefix_bytes;
    return input.tensor[in_tensor / 4] >> in_tensor % 4 * 8 & 255;
}

// The 16 words of the block of the input at byte `at`.
DEVICE void load_block(const Input &input, u64 at, u32 m[16]) {
    if (at < input.prefix_bytes || at + BLOCK_BYTES > input.bytes) {
        for (u32 i = 0; i < 16; i++) {
            m[i] = 0;
            for (u32 b = 0; b < 4; b++) m[i] |= byte_at(input, at + i * 4 + b) << b * 8;
        }
        return;
    }
    const u64 in_tensor = at - input.prefix_bytes;
    const u32 *words = input.tensor + in_tensor / 4;
    const u32 shift = in_tensor % 4 * 8;
    if (shift == 0) {
#pragma unroll
        for (u32 i = 0; i < 16; i++) m[i] = words[i];
        return;
    }
    // Each word of the message lies across two words of the tensor.
    u32 low = words[0];
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        const u32 high = words[i + 1];
        m[i] = low >> shift | high << (32 - shift);
        low = high;
    }
}

// The chaining value of each chunk of 1,024 bytes, 8 words each; of a lone chunk the digest. `head`
// is the key, 32 bytes, then the prefix. One thread per chunk.
KERNEL(32) blake3_chunks(const u32 *tensor, const u8 *head, u32 *values, u64 bytes,
                         u64 prefix_bytes, u64 chunks) {
    const Input input = {head + 32, prefix_bytes, tensor, bytes};
    const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
    u64 chunk = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    for (; chunk < chunks; chunk += step) {
        const u64 start = chunk * CHUNK_BYTES;
        const u32 here = static_cast<u32>(least<u64>(CHUNK_BYTES, bytes - start));
        const u32 blocks = greatest(1u, div_ceil<u32>(here, BLOCK_BYTES));
        Words8 cv = words_at(reinterpret_cast<const u32 *>(head));
        for (u32 block = 0; block < blocks; block++) {
            u32 m[16];
            load_block(input, start + block * BLOCK_BYTES, m);
            u32 flags = DERIVE_KEY_MATERIAL;
            if (block == 0) flags |= CHUNK_START;
            if (block + 1 == blocks) flags |= CHUNK_END;
            if (block + 1 == blocks && chunks == 1) flags |= ROOT;
            const u32 filled = least<u32>(BLOCK_BYTES, here - block * BLOCK_BYTES);
            cv = compress(cv, m, chunk, filled, flags);
        }
#pragma unroll
        for (u32 i = 0; i < 8; i++) values[chunk * 8 + i] = cv.w[i];
    }
}

// Merges runs of 256 chaining values to one each, level by level: neighbours are merged, an odd one
// is passed up unchanged. So a run splits at the largest power of two below its length, as BLAKE3's
// tree does. If there is only one run, its value is the digest. `head` starts with the key. One
// block per run.
KERNEL(128) blake3_tree(const u32 *values, u32 *merged, u64 count, const u8 *head) {
    __shared__ u32 level[LEAVES * 8];
    const u64 first = static_cast<u64>(blockIdx.x) * LEAVES;
    u32 left = static_cast<u32>(least<u64>(LEAVES, count - first));
    for (u32 i = threadIdx.x; i < left * 8; i += blockDim.x) level[i] = values[first * 8 + i];
    const Words8 start = words_at(reinterpret_cast<const u32 *>(head));
    __syncthreads();
    while (left > 1) {
        const u32 pairs = left / 2;
        u32 m[16];
        const bool merges = threadIdx.x < pairs;
        const bool moves = threadIdx.x == pairs && left % 2 == 1;
        if (merges || moves) {
            for (u32 i = 0; i < 16; i++) {
                m[i] = merges || i < 8 ? level[threadIdx.x * 16 + i] : 0;
            }
        }
        __syncthreads();
        if (merges) {
            const bool root = left == 2 && count <= LEAVES;
            const u32 flags = PARENT | DERIVE_KEY_MATERIAL | (root ? ROOT : 0u);
            const Words8 cv = compress(start, m, 0, BLOCK_BYTES, flags);
            for (u32 i = 0; i < 8; i++) level[threadIdx.x * 8 + i] = cv.w[i];
        }
        if (moves) {
            for (u32 i = 0; i < 8; i++) level[threadIdx.x * 8 + i] = m[i];
        }
        __syncthreads();
        left = pairs + left % 2;
    }
    u32 *out = merged + static_cast<u64>(blockIdx.x) * 8;
    if (threadIdx.x < 8) out[threadIdx.x] = level[threadIdx.x];
}
