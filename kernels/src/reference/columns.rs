//! Columns of a matrix in which several matrices stand side by side, such as q, k and v, or gate
//! and up.

/// Which columns belong together: `width` from `offset` on in each of `groups` groups.
///
/// ```
/// use concord_kernels::ops::Columns;
/// use concord_kernels::{Device, Tensor};
///
/// // Of two heads with q, k and v of two elements each: all of k.
/// let keys = Columns { groups: 2, group_width: 6, offset: 2, width: 2 };
/// let fused = Tensor::new(&[1, 12], (0..12).map(|i| i as f32).collect::<Vec<_>>())?;
/// let part = Device::Reference.take_columns(&fused, &keys)?;
/// assert_eq!(part.data(), [2.0, 3.0, 8.0, 9.0]);
/// # Ok::<(), concord_kernels::KernelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Groups of a row.
    pub groups: usize,
    /// Columns of a group.
    pub group_width: usize,
    /// The first chosen column of each group.
    pub offset: usize,
    /// How many columns of each group are chosen.
    pub width: usize,
}

impl Columns {
    /// Columns of the whole.
    pub fn whole(&self) -> usize {
        self.groups * self.group_width
    }

    /// Chosen columns, of all groups together.
    pub fn chosen(&self) -> usize {
        self.groups * self.width
    }
}

/// The columns of x `[rows, groups * group_width]`, side by side: `[rows, groups * width]`.
pub fn take(x: &[f32], columns: &Columns) -> Vec<f32> {
    let (from, to) = (columns.offset, columns.offset + columns.width);
    let groups = x.chunks_exact(columns.group_width);
    groups.flat_map(|group| &group[from..to]).copied().collect()
}

/// Overwrites the columns of x `[rows, groups * group_width]` by part `[rows, groups * width]`.
pub fn put(x: &mut [f32], columns: &Columns, part: &[f32]) {
    let (from, to) = (columns.offset, columns.offset + columns.width);
    let groups = x.chunks_exact_mut(columns.group_width);
    for (group, part) in groups.zip(part.chunks_exact(columns.width)) {
        group[from..to].copy_from_slice(part);
    }
}
