//! Compares products that devices share with the same product on the CPU.

use super::nccl::NcclRank;
use super::{Collective, LocalRank, group};
use crate::coded::Precision;
use crate::conformance::{CaseInput, InputKind, difference};
use crate::{Device, KernelError, Tensor};

const ROWS: usize = 33;
const OUTPUTS: usize = 47;
/// Columns, cut unevenly over the ranks.
const COLUMNS: usize = 301;

/// Has `devices` share products, one rank each, through the host and, where there is NCCL and all
/// are GPUs, through NCCL. Returns how many products were compared.
///
/// # Errors
/// [`KernelError::Collective`] where a bit differs, [`KernelError::Cuda`] where a GPU fails.
pub fn verify(devices: &[Device], seed: u64) -> Result<usize, KernelError> {
    let mut compared = 0;
    for kind in InputKind::ALL {
        let draw = CaseInput::new(seed, kind);
        let expected = whole(&draw)?;
        let ranks = group(devices.len());
        let members = devices.iter().zip(ranks);
        compared += share(&draw, &expected, members.collect(), |rank: LocalRank| {
            Ok(Some(rank))
        })?;
        let Some(id) = NcclRank::group_id()? else {
            continue;
        };
        if !devices.iter().all(has_stream) {
            continue;
        }
        let members = devices.iter().map(|device| (device, device.clone()));
        let ranks = devices.len();
        let numbered = members
            .enumerate()
            .map(|(rank, (device, own))| (device, (rank, own)));
        compared += share(
            &draw,
            &expected,
            numbered.collect(),
            |(rank, device)| match device {
                Device::Cuda(gpu) => NcclRank::join(&gpu, id, rank, ranks),
                _ => Ok(None),
            },
        )?;
    }
    Ok(compared)
}

fn has_stream(device: &Device) -> bool {
    matches!(device, Device::Cuda(gpu) if gpu.raw_stream().is_some())
}

fn whole(draw: &CaseInput) -> Result<Vec<f32>, KernelError> {
    let cpu = Device::cpu(1);
    let code = |stream, rows| {
        cpu.code(
            &draw.tensor(stream, &[rows, COLUMNS])?,
            COLUMNS,
            Precision::I16,
        )
    };
    cpu.matmul(&code(1, ROWS)?, &code(2, OUTPUTS)?)?
        .into_values()
}

/// One thread for each rank; `join` makes its end of the group.
fn share<C: Collective, R: Send>(
    draw: &CaseInput,
    expected: &[f32],
    members: Vec<(&Device, R)>,
    join: impl Fn(R) -> Result<Option<C>, KernelError> + Sync,
) -> Result<usize, KernelError> {
    let ranks = members.len();
    let results: Vec<Result<Vec<f32>, KernelError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = members
            .into_iter()
            .enumerate()
            .map(|(rank, (device, rendezvous))| {
                let join = &join;
                scope.spawn(move || match join(rendezvous)? {
                    None => Err(KernelError::Collective(format!("rank {rank} cannot join"))),
                    Some(group) => part(draw, device, &group),
                })
            })
            .collect();
        let gone = || KernelError::Collective("a rank panicked".to_string());
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(gone()))
        };
        threads.into_iter().map(join).collect()
    });
    for (rank, got) in results.into_iter().enumerate() {
        if let Some(found) = difference(&vec![got?], &vec![expected.to_vec()]) {
            return Err(KernelError::Collective(format!(
                "a product shared by {ranks} ranks differs on rank {rank}: {found:?}"
            )));
        }
    }
    Ok(ranks)
}

/// The product as one rank sees it: its columns of both sides.
fn part(
    draw: &CaseInput,
    device: &Device,
    group: &impl Collective,
) -> Result<Vec<f32>, KernelError> {
    // The first rank holds fewest columns, the last one most.
    let weight = |rank: usize| rank * (rank + 1) / 2;
    let cut = |rank: usize| COLUMNS * weight(rank) / weight(group.ranks());
    let columns = cut(group.rank())..cut(group.rank() + 1);
    let code = |stream, rows| {
        let all = draw.numbers(stream, rows * COLUMNS);
        let held = all
            .chunks_exact(COLUMNS)
            .flat_map(|row| &row[columns.clone()]);
        let held: Vec<f32> = held.copied().collect();
        let held = device.place(Tensor::new(&[rows, columns.len()], held)?)?;
        device.code_split(group, &held, Precision::I16)
    };
    let (x, w) = (code(1, ROWS)?, code(2, OUTPUTS)?);
    device.matmul_split(group, &x, &w)?.into_values()
}
