// What every kernel includes: names of types, float operations that round once, the launch macro.
//
// Kernels are compiled by NVRTC for a GPU, and as C++ for the host (CONCORD_EMULATED), where
// emulator/device_on_cpu.h stands in for CUDA's builtins. So they use no CUDA header, and no
// builtin that the emulator lacks.
#pragma once

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

#ifdef CONCORD_EMULATED
#include "device_on_cpu.h"
#else
#define DEVICE static __device__ __forceinline__
// A kernel of blocks of `threads` threads. The build finds kernels by this word at the start of a
// line: `KERNEL(256) name(arguments) {`. Arguments are pointers, 4-byte and 8-byte numbers.
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
// Dynamic shared memory; its size is set at the launch.
#define DYNAMIC_SHARED(type, name)                                \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(dynamic_shared)
#define ARCH (__CUDA_ARCH__ / 10)
#endif

// All lanes of a warp.
#define WARP 0xffffffffu

// Each operation rounds once; the compiler must not fuse them.
namespace rn {
DEVICE f32 add(f32 a, f32 b) { return __fadd_rn(a, b); }
DEVICE f32 sub(f32 a, f32 b) { return __fsub_rn(a, b); }
DEVICE f32 mul(f32 a, f32 b) { return __fmul_rn(a, b); }
DEVICE f32 div(f32 a, f32 b) { return __fdiv_rn(a, b); }
DEVICE f32 sqrt(f32 a) { return __fsqrt_rn(a); }
DEVICE f32 fma(f32 a, f32 b, f32 c) { return __fmaf_rn(a, b, c); }
} // namespace rn

DEVICE u32 lane_of_warp() { return threadIdx.x % 32; }
DEVICE u32 warp_of_block() { return threadIdx.x / 32; }

DEVICE u32 bits_of(f32 x) { return __float_as_uint(x); }
DEVICE f32 from_bits(u32 bits) { return __uint_as_float(bits); }

template <typename T> DEVICE T least(T a, T b) { return a < b ? a : b; }
template <typename T> DEVICE T greatest(T a, T b) { return a > b ? a : b; }
template <typename T> DEVICE T div_ceil(T a, T b) { return (a + b - 1) / b; }
