//! Row coding on a GPU, with the bits of [`crate::reference::code`].

#[cfg(all(test, feature = "emulator"))]
mod tests;

use super::{Cuda, Grid, Kernel, Result, Slice, arguments};
use crate::coded::{Coded, Precision};
use crate::reference::tree::Atoms;

/// Rows of at most so many elements are coded by a warp each, longer ones by a block.
const SHORT: usize = 512;

/// Columns that a block of `code_cols` takes: `TILE_COLS` of `code.cu`.
const TILE_COLS: usize = 32;

const fn kernel(name: &'static str) -> Kernel {
    let module = "code";
    Kernel { module, name }
}

/// Codes the rows of `x`, seen as rows of `cols` elements; element j is first multiplied by
/// `2^fold[j]`.
pub(crate) fn rows(
    cuda: &Cuda,
    x: &Slice<f32>,
    cols: usize,
    fold: Option<&Slice<i32>>,
    precision: Precision,
) -> Result<Coded> {
    let rows = x.len().checked_div(cols).unwrap_or(0);
    let (q, exp) = (cuda.alloc::<i16>(rows * cols)?, cuda.alloc::<i32>(rows)?);
    if rows > 0 {
        let (name, blocks) = if cols <= SHORT {
            ("code_short_rows", rows.div_ceil(8))
        } else {
            ("code_rows", rows)
        };
        let grid = Grid::new(blocks.min(1 << 30) as u32, 256);
        let limit = precision.limit();
        let arguments = arguments![x, rows as u32, cols as u32, fold, limit, &q, &exp];
        cuda.launch(kernel(name), grid, arguments)?;
    }
    Ok(Coded {
        rows,
        cols,
        precision,
        q: q.into(),
        exp: exp.into(),
    })
}

/// The columns of each atom, coded: of atom t row c is column c of the atom's tokens.
#[derive(Debug)]
pub(crate) struct CodedAtoms {
    /// Codes `[atoms, cols, stride]`; a row uses as many as the atom has tokens.
    q: Slice<i16>,
    /// Exponents `[atoms, cols]`.
    exp: Slice<i32>,
    cols: usize,
    /// Distance between two rows, in elements.
    pub(crate) stride: usize,
}

impl CodedAtoms {
    /// Codes `[cols, stride]` and exponents of atom `index`.
    pub(crate) fn atom(&self, index: usize) -> (Slice<i16>, Slice<i32>) {
        let size = self.cols * self.stride;
        (
            self.q.part(index * size, size),
            self.exp.part(index * self.cols, self.cols),
        )
    }
}

/// Codes the columns of each atom of `x` `[tokens, cols]`; row i is first multiplied by
/// `2^fold[i]`. One launch for neighbouring sequences of one length.
pub(crate) fn atoms(
    cuda: &Cuda,
    x: &Slice<f32>,
    cols: usize,
    fold: &Slice<i32>,
    atoms: &Atoms,
    precision: Precision,
) -> Result<CodedAtoms> {
    // A multiple of 8, so that rows can be read 8 codes at a time.
    let stride = atoms.longest().next_multiple_of(8);
    let count = atoms.count();
    let coded = CodedAtoms {
        q: cuda.alloc(count * cols * stride)?,
        exp: cuda.alloc(count * cols)?,
        cols,
        stride,
    };
    for group in atoms.groups().filter(|group| group.count * cols > 0) {
        let (first, tokens) = (group.sequences.first_token, group.sequences.tokens());
        let grid = Grid::new((cols.div_ceil(TILE_COLS) * group.count) as u32, 256);
        let size = cols * stride;
        let x = x.part(first * cols, tokens * cols);
        let fold = fold.part(first, tokens);
        let q = coded.q.part(group.first_atom * size, group.count * size);
        let exp = coded.exp.part(group.first_atom * cols, group.count * cols);
        let arguments = arguments![
            &x,
            group.sequences.len as u32,
            cols as u32,
            Atoms::TOKENS as u32,
            &fold,
            precision.limit(),
            &q,
            stride as u32,
            &exp,
        ];
        cuda.launch(kernel("code_cols"), grid, arguments)?;
    }
    Ok(coded)
}

/// Codes the rows of `x`, seen as rows of `cols` elements, with given exponents.
pub(crate) fn rows_at(
    cuda: &Cuda,
    x: &Slice<f32>,
    cols: usize,
    exp: &Slice<i32>,
) -> Result<Slice<i16>> {
    let q = cuda.alloc::<i16>(x.len())?;
    if !q.is_empty() {
        let grid = super::grids::over(cuda, x.len());
        let arguments = arguments![x, x.len() as u64, cols as u32, exp, &q];
        cuda.launch(kernel("code_at"), grid, arguments)?;
    }
    Ok(q)
}
