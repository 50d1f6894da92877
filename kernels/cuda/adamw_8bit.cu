// AdamW with moments in 8 bits. Twin of kernels/src/cpu/adamw_8bit.rs.
#include "moments.cuh"

// Updates values and moments in place from the summed gradient. A block takes a block of moments, a
// thread a number.
KERNEL(256) adamw_8bit_step(const f32 *gradient, f32 *value, u32 *first, u32 *second,
                            const f32 *tables, u64 len, f32 gradient_scale, f32 learning_rate,
                            f32 beta1, f32 beta2, f32 bias1, f32 bias2, f32 epsilon,
                            f32 weight_decay) {
    __shared__ f32 table[4 * TABLE];
    __shared__ u32 partials[MOMENT_BLOCK / 32];
    for (u32 i = threadIdx.x; i < 4 * TABLE; i += blockDim.x) table[i] = tables[i];
    __syncthreads();
    const u64 blocks = div_ceil<u64>(len, MOMENT_BLOCK);
    for (u64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        u32 *m_words = first + block * BLOCK_WORDS, *v_words = second + block * BLOCK_WORDS;
        u8 *m_codes = reinterpret_cast<u8 *>(m_words + 1);
        u8 *v_codes = reinterpret_cast<u8 *>(v_words + 1);
        const u64 i = block * MOMENT_BLOCK + threadIdx.x;
        const bool inside = i < len;
        f32 m = 0.0f, v = 0.0f;
        if (inside) {
            m = rn::mul(from_bits(m_words[0]), table[m_codes[threadIdx.x]]);
            v = rn::mul(from_bits(v_words[0]), table[2 * TABLE + v_codes[threadIdx.x]]);
            const f32 g = rn::mul(gradient[i], gradient_scale);
            m = rn::fma(beta1, m, rn::mul(rn::sub(1.0f, beta1), g));
            v = rn::fma(beta2, v, rn::mul(rn::sub(1.0f, beta2), rn::mul(g, g)));
            const f32 decayed = rn::fma(-rn::mul(learning_rate, weight_decay), value[i], value[i]);
            const f32 root = rn::add(rn::sqrt(rn::div(v, bias2)), epsilon);
            value[i] = rn::fma(-learning_rate, rn::div(rn::div(m, bias1), root), decayed);
        }
        const u32 m_scale = block_scale(m, partials), v_scale = block_scale(v, partials);
        if (inside) {
            m_codes[threadIdx.x] = static_cast<u8>(encode(m, m_scale, table + TABLE));
            const u32 code = encode(v, v_scale, table + 3 * TABLE);
            v_codes[threadIdx.x] = static_cast<u8>(greatest<u32>(code, v > 0.0f ? 1 : 0));
        }
        if (threadIdx.x == 0) {
            m_words[0] = m_scale;
            v_words[0] = v_scale;
        }
    }
}

// Lowers *found to the index of the first block whose scale is not finite.
KERNEL(256) adamw_8bit_check(const u32 *words, u64 *found, u64 blocks) {
    u64 bad = ~0ull;
    for_each_of(blocks, [&](u64 block) {
        if (words[block * BLOCK_WORDS] >= 0x7f800000u) bad = least(bad, block);
    });
    if (bad != ~0ull) atomicMin(found, bad);
}
