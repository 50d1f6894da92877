// Columns of a matrix in which several matrices stand side by side. Twin of
// kernels/src/reference/columns.rs.
#include "spread.cuh"

// Calls `body(whole, part)` for each element of the part [rows, groups * width]: where it lies in
// the whole [rows, groups * group_width], and where in the part.
template <typename Body>
DEVICE void for_each_chosen(u32 rows, u32 groups, u32 group_width, u32 offset, u32 width,
                            Body body) {
    for_each_in(rows, groups * width, [&](u32 row, u32 c) {
        const u64 group = static_cast<u64>(row) * groups + c / width;
        body(group * group_width + offset + c % width,
             static_cast<u64>(row) * groups * width + c);
    });
}

// part = the columns of x.
KERNEL(256) columns_take(const f32 *x, f32 *part, u32 rows, u32 groups, u32 group_width,
                         u32 offset, u32 width) {
    for_each_chosen(rows, groups, group_width, offset, width,
                    [&](u64 whole, u64 chosen) { part[chosen] = x[whole]; });
}

// The columns of x = part.
KERNEL(256) columns_put(f32 *x, const f32 *part, u32 rows, u32 groups, u32 group_width, u32 offset,
                        u32 width) {
    for_each_chosen(rows, groups, group_width, offset, width,
                    [&](u64 whole, u64 chosen) { x[whole] = part[chosen]; });
}
