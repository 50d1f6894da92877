//! Random numbers of training: elements that are dropped, and noise.

use crate::coded::Coded;
use crate::reference::noise::{Dropout, TOKEN_WORDS};
use crate::{Device, Ids, KernelError, Tensor, cpu, cuda, reference};

/// What tells the rows of a tensor apart where random numbers are drawn for them.
#[derive(Clone, Copy, Debug)]
pub struct RandomRows<'a> {
    /// Of each token its position and its document, a number of 64 bits, as `[m, 3]`: position,
    /// low half, high half.
    pub tokens: &'a Ids,
    /// The token of each row, where rows are not those of the tokens.
    pub rows: Option<&'a Ids>,
}

impl RandomRows<'_> {
    fn assert_fits(&self, rows: usize) {
        let tokens = self.tokens.len() / TOKEN_WORDS;
        let own = self.rows.map_or(tokens, Ids::len);
        assert_eq!(rows, own, "random numbers: rows");
    }
}

impl Device {
    /// The codes of x with 0 for dropped elements; exponents stay.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn dropped(
        &self,
        x: &Coded,
        dropout: Dropout,
        rows: RandomRows<'_>,
    ) -> Result<Coded, KernelError> {
        rows.assert_fits(x.rows);
        let mut dropped = x.clone();
        if let Self::Cuda(gpu) = self {
            let (tokens, of_rows) = on_gpu(gpu, rows)?;
            let q = dropped.q.unique_on(gpu)?;
            cuda::noise::drop_codes(gpu, q, x.cols, dropout, (&tokens, of_rows.as_ref()))?;
            return Ok(dropped);
        }
        let tokens = rows.tokens.values()?;
        let of_rows = rows.rows.map(Ids::values).transpose()?;
        let (q, of_rows) = (dropped.q.values_mut()?, of_rows.as_deref());
        match self {
            Self::Cpu(cpu) => {
                cpu::noise::drop_assign(cpu, q, x.cols, dropout, &tokens, of_rows);
            }
            _ => reference::noise::drop_assign(q, x.cols, dropout, &tokens, of_rows),
        }
        Ok(dropped)
    }

    /// Puts 0 for the dropped elements of x `[rows, cols]`.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn drop_assign(
        &self,
        x: &mut Tensor,
        dropout: Dropout,
        rows: RandomRows<'_>,
    ) -> Result<(), KernelError> {
        let (count, cols) = x.rows_cols();
        rows.assert_fits(count);
        if let Self::Cuda(gpu) = self {
            let (tokens, of_rows) = on_gpu(gpu, rows)?;
            let x = x.unique_on(gpu)?;
            return cuda::noise::drop_values(gpu, x, cols, dropout, (&tokens, of_rows.as_ref()));
        }
        let tokens = rows.tokens.values()?;
        let of_rows = rows.rows.map(Ids::values).transpose()?;
        let (x, of_rows) = (x.values_mut()?, of_rows.as_deref());
        match self {
            Self::Cpu(cpu) => cpu::noise::drop_assign(cpu, x, cols, dropout, &tokens, of_rows),
            _ => reference::noise::drop_assign(x, cols, dropout, &tokens, of_rows),
        }
        Ok(())
    }

    /// Adds noise to x `[m, cols]`: uniform in `[-reach, reach)`, reach `[m]`. `tokens` is as in
    /// [`RandomRows`].
    ///
    /// # Errors
    /// [`KernelError::Cuda`] where a GPU fails.
    pub fn add_noise(
        &self,
        x: &mut Tensor,
        key: u64,
        tokens: &Ids,
        reach: &Tensor,
    ) -> Result<(), KernelError> {
        let (count, cols) = x.rows_cols();
        RandomRows { tokens, rows: None }.assert_fits(count);
        assert_eq!(count, reach.len(), "add_noise: reach");
        if let Self::Cuda(gpu) = self {
            let (tokens, reach) = (tokens.on(gpu)?, reach.on(gpu)?);
            return cuda::noise::add_noise(gpu, x.unique_on(gpu)?, cols, key, &tokens, &reach);
        }
        let (tokens, reach) = (tokens.values()?, reach.values()?);
        let x = x.values_mut()?;
        match self {
            Self::Cpu(cpu) => cpu::noise::add_noise(cpu, x, cols, key, &tokens, &reach),
            _ => reference::noise::add_noise(x, cols, key, &tokens, &reach),
        }
        Ok(())
    }
}

type OnGpu = (cuda::Slice<u32>, Option<cuda::Slice<u32>>);

fn on_gpu(gpu: &cuda::Cuda, rows: RandomRows<'_>) -> Result<OnGpu, KernelError> {
    let of_rows = rows.rows.map(|rows| rows.on(gpu)).transpose()?;
    Ok((rows.tokens.on(gpu)?, of_rows))
}
