//! Matrices of codes of at most eight bits, whatever order their file has them in: as numbers, or
//! repacked row by row as blocks that stay packed in memory.

use std::ops::Range;

use concord_kernels::packed::BlockFormat;

use super::parts::StoredPart;
use crate::weights::rows::RowReader;

/// Codes by row and column, with what some of a row share.
pub(super) trait Codes {
    /// Codes in a row.
    fn cols(&self) -> usize;

    /// Writes the codes of `rows` to `out`, a byte each.
    fn read(&self, rows: Range<usize>, out: &mut [u8]);

    /// The scale and the zero point of a code; 0 where there are no zero points.
    fn group(&self, row: usize, col: usize) -> (f32, i32);

    /// The number of a code: that of an integer, rounded once.
    fn number(&self, code: u8, (scale, zero): (f32, i32)) -> f32 {
        scale * (i32::from(code) - zero) as f32
    }
}

/// Reads rows as blocks.
pub(in crate::weights) trait BlockReader {
    /// Writes `rows` to `out`, which has room for just them, as blocks of the format that the
    /// matrix names.
    fn read_blocks(&self, format: BlockFormat, rows: Range<usize>, out: &mut [u8]);
}

/// Codes that are read as numbers or as blocks.
pub(super) struct CodeRows<C>(pub(super) C);

impl<C: Codes> CodeRows<C> {
    fn codes(&self, rows: &Range<usize>) -> Vec<u8> {
        let mut codes = vec![0; rows.len() * self.0.cols()];
        self.0.read(rows.clone(), &mut codes);
        codes
    }
}

impl<C: Codes> RowReader for CodeRows<C> {
    fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        let (codes, cols) = (self.codes(&rows), self.0.cols().max(1));
        let each = out.chunks_mut(cols).zip(codes.chunks(cols));
        for (row, (out, codes)) in rows.zip(each) {
            for (col, (out, code)) in out.iter_mut().zip(codes).enumerate() {
                *out = self.0.number(*code, self.0.group(row, col));
            }
        }
    }
}

impl<C: Codes> BlockReader for CodeRows<C> {
    fn read_blocks(&self, format: BlockFormat, rows: Range<usize>, out: &mut [u8]) {
        let codes = self.codes(&rows);
        let elements = format.elements();
        let across = self.0.cols() / elements;
        let blocks = out.chunks_exact_mut(format.bytes());
        for (i, (block, codes)) in blocks.zip(codes.chunks_exact(elements)).enumerate() {
            let (row, col) = (rows.start + i / across, i % across * elements);
            let (scale, zero) = self.0.group(row, col);
            let (head, mut rest) = block.split_at_mut(4);
            head.copy_from_slice(&scale.to_le_bytes());
            if has_zero(format) {
                let (head, codes) = rest.split_at_mut(2);
                // Zero points and their offsets have at most nine bits.
                head.copy_from_slice(&(zero as i16).to_le_bytes());
                rest = codes;
            }
            if rest.len() == codes.len() {
                rest.copy_from_slice(codes);
                continue;
            }
            for (byte, [first, second]) in rest.iter_mut().zip(codes.as_chunks().0) {
                *byte = first << 4 | second;
            }
        }
    }
}

fn has_zero(format: BlockFormat) -> bool {
    use BlockFormat::{U4x32, U4x64, U4x128, U8x64};
    matches!(format, U4x32 | U4x64 | U4x128 | U8x64)
}

/// The format of integers of `bits` bits in rows of `cols`, of which each `group` beside each other
/// share a scale and a zero point. Nothing where no format has such rows.
pub(super) fn integer_format(bits: u32, cols: usize, group: usize) -> Option<BlockFormat> {
    let four = [BlockFormat::U4x128, BlockFormat::U4x64, BlockFormat::U4x32];
    let formats = match bits {
        ..=4 => &four[..],
        _ => &[BlockFormat::U8x64],
    };
    formats
        .iter()
        .find_map(|format| fitting(*format, cols, group))
}

/// The format, where rows of `cols` are whole blocks, and all numbers of a block are of one group.
pub(super) fn fitting(format: BlockFormat, cols: usize, group: usize) -> Option<BlockFormat> {
    let block = format.elements();
    let is_whole = cols > 0 && cols.is_multiple_of(block);
    let has_one_group = group >= cols || group.is_multiple_of(block);
    (is_whole && has_one_group).then_some(format)
}

/// Whether the groups of inputs that a file lists are those of inputs that follow each other.
/// Others (`desc_act`) cannot be blocks of a row.
pub(super) fn are_in_order(g_idx: Option<StoredPart>, group: usize) -> bool {
    g_idx.is_none_or(|part| {
        let all = part.words().iter().map(|word| i32::from_le_bytes(*word));
        let is_next = |(input, index): (usize, i32)| usize::try_from(index) == Ok(input / group);
        all.enumerate().all(is_next)
    })
}
