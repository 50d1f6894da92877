// Lion with its momentum in 8 bits. Twin of kernels/src/cpu/lion_8bit.rs.
#include "moments.cuh"

// Updates value and momentum in place from the summed gradient. A block takes a block of the
// momentum, a thread a number.
KERNEL(256) lion_8bit_step(const f32 *gradient, f32 *value, u32 *momentum, const f32 *tables,
                           u64 len, f32 gradient_scale, f32 learning_rate, f32 beta1, f32 beta2,
                           f32 weight_decay) {
    __shared__ f32 table[2 * TABLE];
    __shared__ u32 partials[MOMENT_BLOCK / 32];
    for (u32 i = threadIdx.x; i < 2 * TABLE; i += blockDim.x) table[i] = tables[i];
    __syncthreads();
    const u64 blocks = div_ceil<u64>(len, MOMENT_BLOCK);
    for (u64 block = blockIdx.x; block < blocks; block += gridDim.x) {
        u32 *words = momentum + block * BLOCK_WORDS;
        u8 *codes = reinterpret_cast<u8 *>(words + 1);
        const u64 i = block * MOMENT_BLOCK + threadIdx.x;
        const bool inside = i < len;
        f32 m = 0.0f;
        if (inside) {
            m = rn::mul(from_bits(words[0]), table[codes[threadIdx.x]]);
            const f32 g = rn::mul(gradient[i], gradient_scale);
            const f32 mixed = rn::fma(beta1, m, rn::mul(rn::sub(1.0f, beta1), g));
            const f32 sign = mixed > 0.0f ? 1.0f : mixed < 0.0f ? -1.0f : 0.0f;
            const f32 decayed = rn::fma(-rn::mul(learning_rate, weight_decay), value[i], value[i]);
            value[i] = rn::fma(-learning_rate, sign, decayed);
            m = rn::fma(beta2, m, rn::mul(rn::sub(1.0f, beta2), g));
        }
        const u32 scale = block_scale(m, partials);
        if (inside) codes[threadIdx.x] = static_cast<u8>(encode(m, scale, table + TABLE));
        if (threadIdx.x == 0) words[0] = scale;
    }
}
