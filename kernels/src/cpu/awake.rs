//! Threads that stay awake between the operations of a short pass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rayon::Yield;

use super::Cpu;

/// Says on the way out, also of a panic, that the work is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` on a thread of the pool, while the others look for its tasks and do not go to sleep:
/// a pass of decoding has hundreds of operations of 100 microseconds, and waking a thread for each
/// takes a tenth of its time. They give way to other programs that want the processor.
pub(crate) fn with_threads_awake<R: Send>(cpu: &Cpu, work: impl FnOnce() -> R + Send) -> R {
    if cpu.threads() == 1 {
        return cpu.pool().install(work);
    }
    cpu.pool().install(|| {
        let over = AtomicBool::new(false);
        let home = rayon::current_thread_index();
        rayon::scope(|scope| {
            scope.spawn_broadcast(|_, context| {
                // The thread of the work itself comes here while it waits for another.
                if Some(context.index()) != home {
                    look_for_work(&over);
                }
            });
            let _over = Over(&over);
            work()
        })
    })
}

fn look_for_work(over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        if !matches!(rayon::yield_now(), Some(Yield::Executed)) {
            thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::isa::Isa;

    #[test]
    fn the_work_is_done_and_a_panic_in_it_ends_it() {
        let cpu = Cpu::new(Isa::best(), 3);
        for round in 0..50_u64 {
            let sum = || (0..round * 10).into_par_iter().sum::<u64>();
            let got = with_threads_awake(&cpu, || sum() + sum());
            assert_eq!(got, (0..round * 10).sum::<u64>() * 2);
        }
        let panics = || with_threads_awake(&cpu, || panic!("as a test"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics));
        assert!(caught.is_err());
    }
}
