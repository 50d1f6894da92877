// Kernels that test the emulated GPU itself: correct ones, and one for each error that it must
// find.
#include "base.cuh"

// out[i] = in of the mirrored thread of the block, through dynamic shared memory.
KERNEL(256) selftest_mirror(const u32 *in, u32 *out, u32 barrier) {
    DYNAMIC_SHARED(u32, tile);
    const u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    tile[threadIdx.x] = in[i];
    if (barrier) __syncthreads();
    out[i] = tile[blockDim.x - 1 - threadIdx.x];
}

// Static shared memory, more than once in a row.
KERNEL(1024) selftest_rounds(u32 *out, u32 rounds) {
    __shared__ u32 tile[1024];
    u32 value = threadIdx.x;
    for (u32 round = 0; round < rounds; ++round) {
        tile[threadIdx.x] = value;
        __syncthreads();
        value = tile[(threadIdx.x + 1) % blockDim.x] + 1;
        __syncthreads();
    }
    out[threadIdx.x] = value;
}

// Every warp operation on one warp: 8 results a lane.
KERNEL(64) selftest_warp(u32 *out) {
    const u32 lane = lane_of_warp(), mine = 100 * warp_of_block() + lane;
    u32 *to = out + 8 * threadIdx.x;
    to[0] = __shfl_sync(WARP, mine, 5);
    to[1] = __shfl_down_sync(WARP, mine, 3);
    to[2] = __shfl_up_sync(WARP, mine, 3);
    to[3] = __shfl_xor_sync(WARP, mine, 16);
    to[4] = __ballot_sync(WARP, lane % 3 == 0);
    __syncwarp();
    to[5] = static_cast<u32>(__any_sync(WARP, lane == 31 && warp_of_block() == 1));
    to[6] = static_cast<u32>(__shfl_sync(WARP, static_cast<u64>(mine) << 32, lane % 4, 8) >> 32);
    to[7] = __shfl_xor_sync(WARP, mine, 2, 4);
}

#ifdef CONCORD_EMULATED
// What the emulator offers beyond CUDA's builtins: a sum over the lanes, computed in three ways.
KERNEL(64) selftest_lanes(u32 *out) {
    const u32 mine = threadIdx.x;
    const u32 *lanes = emulator::warp_lanes(mine);
    u32 sum = 0;
    for (u32 lane = 0; lane < 32; ++lane) sum += lanes[lane];
    u32 all[32], applied = mine;
    emulator::warp_gather(&mine, sizeof mine, all);
    emulator::warp_apply(applied, [](u32 *lanes) {
        u32 total = 0;
        for (u32 lane = 0; lane < 32; ++lane) total += lanes[lane];
        for (u32 lane = 0; lane < 32; ++lane) lanes[lane] = total + lane;
    });
    out[3 * mine] = sum;
    out[3 * mine + 1] = all[31];
    out[3 * mine + 2] = applied;
}
#endif

// Arguments of every kind.
KERNEL(32) selftest_arguments(f32 *out, i32 a, u64 b, f32 c, i64 d, const f32 *none) {
    if (threadIdx.x == 0) {
        out[0] = rn::add(__int2float_rn(a), c);
        out[1] = __double2float_rn(__ll2double_rn(static_cast<i64>(b) + d));
        out[2] = none == nullptr ? 1.0f : 2.0f;
    }
}

// Static shared memory that nobody wrote.
KERNEL(32) selftest_unwritten(u32 *out) {
    __shared__ u32 tile[8][4];
    __shared__ u32 one;
    if (threadIdx.x == 0) {
        tile[0][0] = 1;
        out[2 * blockIdx.x] = tile[7][3];
        out[2 * blockIdx.x + 1] = one;
        tile[7][3] = one = 2;
    }
}

// Integer and conversion builtins of a, b and the f32 whose bits are a: 8 results a pair.
KERNEL(32) selftest_builtins(const u32 *a, const u32 *b, u32 pairs, u32 *out) {
    for (u32 i = threadIdx.x; i < pairs; i += blockDim.x) {
        const i32 x = static_cast<i32>(a[i]), y = static_cast<i32>(b[i]);
        u32 *to = out + 8 * i;
        to[0] = static_cast<u32>(__dp4a(x, y, 1000));
        to[1] = __umulhi(a[i], b[i]);
        to[2] = static_cast<u32>(__clz(x));
        to[3] = static_cast<u32>(__popc(a[i]));
        to[4] = __funnelshift_r(a[i], b[i], a[i]);
        to[5] = static_cast<u32>(__float2int_rn(from_bits(a[i])));
        to[6] = bits_of(rn::fma(from_bits(a[i]), from_bits(b[i]), 1.0f));
        to[7] = bits_of(__double2float_rn(__dmul_rn(__int2double_rn(x), 1e-40)));
    }
}

// Where each block and thread of a grid stands: counts visits of every one.
KERNEL(96) selftest_grid(u32 *visits) {
    const u64 block = (u64(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    atomicAdd(visits + block * blockDim.x + threadIdx.x, 1u);
}

// Each block reads what another may have written: another order of blocks gives another result.
KERNEL(32) selftest_race(u32 *cell, u32 *out) {
    if (threadIdx.x == 0) {
        out[blockIdx.x] = *cell;
        *cell = blockIdx.x;
    }
}

// The GPU's generation, as the kernel sees it.
KERNEL(32) selftest_arch(u32 *out) {
    if (threadIdx.x == 0) *out = ARCH;
}

// A thread leaves before a barrier.
KERNEL(64) selftest_early_return(u32 *out) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

// Half of a warp waits for the block, the other half for the warp.
KERNEL(64) selftest_divergent(u32 *out) {
    if (lane_of_warp() < 16) __syncthreads();
    else __syncwarp();
    out[threadIdx.x] = 1;
}

// Lanes of a warp in different operations.
KERNEL(32) selftest_mixed(u32 *out) {
    out[threadIdx.x] = lane_of_warp() < 16 ? __shfl_sync(WARP, 1u, 0) : __ballot_sync(WARP, 1);
}

// Writes one element at `index`.
KERNEL(32) selftest_write(u32 *out, i64 index) {
    if (threadIdx.x == 3) out[index] = 7;
}

KERNEL(32) selftest_divide(u32 *out, u32 divisor) { out[threadIdx.x] = 100u / divisor; }
