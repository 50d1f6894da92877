// How elementwise kernels spread over a grid of any size.
#pragma once
#include "base.cuh"

// Calls `body(i)` once for each i below `len`, on a grid of one dimension.
template <typename Body> DEVICE void for_each_of(u64 len, Body body) {
    const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < len; i += step) {
        body(i);
    }
}

// Calls `body(row, col)` once for each element: columns along the x axis of the grid, rows along y.
template <typename Body> DEVICE void for_each_in(u32 rows, u32 cols, Body body) {
    const u64 step = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u32 row = blockIdx.y; row < rows; row += gridDim.y) {
        u64 col = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
        for (; col < cols; col += step) body(row, static_cast<u32>(col));
    }
}
