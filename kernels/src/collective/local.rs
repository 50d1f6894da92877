//! Ranks that are threads of one process, on any devices: they exchange data through the host.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Collective;
use crate::gpu::Element;
use crate::{Buffer, KernelError};

/// A rank of a group in this process. Dropping it tells the others that it is gone.
pub struct LocalRank {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// Where the ranks meet.
struct Meeting {
    ranks: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The sum or maximum of what the ranks have brought to this meeting so far, widened to 64
    /// bits.
    brought: Option<Vec<i64>>,
    arrived: usize,
    /// How many meetings are over.
    meetings: u64,
    result: Arc<Vec<i64>>,
    /// The first rank that left.
    gone: Option<usize>,
}

/// A group of `ranks` ranks, one for each thread that takes part.
pub fn group(ranks: usize) -> Vec<LocalRank> {
    let meeting = Arc::new(Meeting {
        ranks,
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    (0..ranks)
        .map(|rank| LocalRank {
            rank,
            meeting: Arc::clone(&meeting),
        })
        .collect()
}

impl LocalRank {
    /// Brings elements, waits for those of all ranks, and returns the combined result.
    fn meet(&self, own: Vec<i64>, add: fn(i64, i64) -> i64) -> Result<Arc<Vec<i64>>, KernelError> {
        let mut state = self.meeting.lock();
        let number = state.meetings;
        state.brought = Some(match state.brought.take() {
            None => own,
            Some(brought) if brought.len() == own.len() => brought
                .into_iter()
                .zip(own)
                .map(|(a, b)| add(a, b))
                .collect(),
            Some(brought) => {
                let (rank, own, others) = (self.rank, own.len(), brought.len());
                state.gone = Some(rank);
                self.meeting.changed.notify_all();
                return Err(KernelError::Collective(format!(
                    "rank {rank} brings {own} elements where others bring {others}"
                )));
            }
        });
        state.arrived += 1;
        if state.arrived == self.meeting.ranks {
            state.result = Arc::new(state.brought.take().unwrap_or_default());
            state.arrived = 0;
            state.meetings += 1;
            self.meeting.changed.notify_all();
        }
        while state.meetings == number {
            if let Some(gone) = state.gone {
                return Err(KernelError::Collective(format!(
                    "rank {gone} of {} is gone",
                    self.meeting.ranks
                )));
            }
            let waited = self.meeting.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&state.result))
    }

    fn reduce<T: Element + Into<i64>>(
        &self,
        x: &mut Buffer<T>,
        add: fn(i64, i64) -> i64,
        narrow: fn(i64) -> T,
    ) -> Result<(), KernelError> {
        let own = x.values()?.iter().map(|&v| v.into()).collect();
        let result = self.meet(own, add)?;
        let reduced: Vec<T> = result.iter().map(|&v| narrow(v)).collect();
        *x = match x {
            Buffer::Cuda(slice) => Buffer::Cuda(slice.cuda().upload(&reduced)?),
            Buffer::Host(_) => Buffer::Host(reduced),
        };
        Ok(())
    }
}

impl Collective for LocalRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.meeting.ranks
    }

    fn sum(&self, x: &mut Buffer<i64>) -> Result<(), KernelError> {
        self.reduce(x, i64::wrapping_add, |v| v)
    }

    fn max(&self, x: &mut Buffer<i32>) -> Result<(), KernelError> {
        self.reduce(x, i64::max, |v| v as i32)
    }
}

impl Drop for LocalRank {
    fn drop(&mut self) {
        self.meeting.lock().gone.get_or_insert(self.rank);
        self.meeting.changed.notify_all();
    }
}

impl Meeting {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
