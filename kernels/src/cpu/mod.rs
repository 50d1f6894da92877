//! The CPU back-end: SIMD and threads, with the bits of [`crate::reference`].

/// Compiles one body for each instruction set and picks by `isa` at run time.
///
/// The body is an `#[inline(always)]` function of plain code; the compiler's vectors change its
/// speed, never its bits. An instruction set that this machine lacks falls back to portable code.
macro_rules! per_isa {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?
     = $body:path) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                $body($($arg),*)
            }
            match isa {
                // SAFETY: the guard has seen that this machine has these instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 if isa.is_available() => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 if isa.is_available() => unsafe { avx512($($arg),*) },
                _ => $body($($arg),*),
            }
        }
    };
}

pub mod activation;
pub mod adamw;
pub mod adamw_8bit;
pub mod attention;
mod awake;
pub mod code;
pub mod cross_entropy;
pub mod elementwise;
pub mod experts;
pub mod keys;
pub mod layernorm;
pub mod lion;
pub mod lion_8bit;
pub mod logprobs;
pub mod matmul;
pub mod noise;
pub mod pages;
pub mod reduce;
pub mod rmsnorm;
pub mod rope;
pub mod route;
pub mod sample;
pub mod sgd;
pub mod soft_cap;

use std::sync::Arc;

use crate::isa::Isa;

/// An instruction set and a pool of threads. Neither changes a bit of any result.
#[derive(Clone, Debug)]
pub struct Cpu {
    isa: Isa,
    pool: Arc<rayon::ThreadPool>,
}

impl Cpu {
    /// A back-end of `threads` threads.
    ///
    /// # Panics
    /// Where this machine lacks `isa` (see [`Isa::is_available`]) or the threads cannot be started.
    pub fn new(isa: Isa, threads: usize) -> Self {
        assert!(isa.is_available(), "this machine lacks {isa}");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("kernels-{i}"))
            .build()
            .expect("the operating system gives threads");
        Self {
            isa,
            pool: Arc::new(pool),
        }
    }

    /// The instruction set that the kernels run on.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads of the pool.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Rows of `cols` elements that one task takes: enough to be worth handing to a thread.
    pub fn rows_per_task(&self, cols: usize) -> usize {
        const TASK_ELEMENTS: usize = 1 << 14;
        (TASK_ELEMENTS / cols.max(1)).max(1)
    }

    /// Runs `work` on a thread of the pool, the others of which do not sleep until it is done.
    pub(crate) fn with_threads_awake<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        awake::with_threads_awake(self, work)
    }

    /// The pool itself, for work that is split by the caller.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }
}
