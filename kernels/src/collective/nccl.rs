//! Ranks that are GPUs of one host, by NCCL where the machine has it. Not yet run on a GPU.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

use libloading::Library;

use super::Collective;
use crate::gpu::{Cuda, Element, Slice};
use crate::{Buffer, KernelError};

/// Names of the library, best first.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Values of `ncclDataType_t`.
const INT32: c_int = 2;
const INT64: c_int = 4;
/// Values of `ncclRedOp_t`.
const SUM: c_int = 0;
const MAX: c_int = 2;

/// The id of a group: `ncclUniqueId`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GroupId([c_char; 128]);

type Communicator = *mut c_void;

/// The functions that are used, under NCCL's names without `nccl`.
struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut GroupId) -> c_int,
    comm_init_rank: unsafe extern "C" fn(*mut Communicator, c_int, GroupId, c_int) -> c_int,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Communicator,
        *mut c_void,
    ) -> c_int,
    comm_destroy: unsafe extern "C" fn(Communicator) -> c_int,
    /// Keeps the functions loaded.
    _library: Library,
}

impl Functions {
    /// NCCL of this machine, loaded once; `None` where it is not installed.
    fn of_machine() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Functions>> = OnceLock::new();
        FOUND
            .get_or_init(|| NAMES.iter().find_map(|name| Self::load(name)))
            .as_ref()
    }

    fn load(name: &str) -> Option<Self> {
        // SAFETY: loading the library runs its initialisers, which ask nothing of the process; the
        // types are those of nccl.h, the same in every release of NCCL 2.
        unsafe {
            let library = Library::new(name).ok()?;
            Some(Self {
                get_unique_id: *library.get(b"ncclGetUniqueId").ok()?,
                comm_init_rank: *library.get(b"ncclCommInitRank").ok()?,
                all_reduce: *library.get(b"ncclAllReduce").ok()?,
                comm_destroy: *library.get(b"ncclCommDestroy").ok()?,
                _library: library,
            })
        }
    }
}

/// A rank of a group of GPUs.
pub struct NcclRank {
    nccl: &'static Functions,
    cuda: Cuda,
    stream: u64,
    communicator: Communicator,
    rank: usize,
    ranks: usize,
}

// SAFETY: a communicator may be used from any thread, one call at a time; each rank has its own,
// and a rank is driven by one thread.
unsafe impl Send for NcclRank {}
// SAFETY: as above: calls on one rank are put into one stream in the order in which they are made.
unsafe impl Sync for NcclRank {}

impl NcclRank {
    /// An id for a new group; `None` where this machine has no NCCL.
    ///
    /// # Errors
    /// [`KernelError::Collective`] where NCCL gives none.
    pub fn group_id() -> Result<Option<GroupId>, KernelError> {
        let Some(nccl) = Functions::of_machine() else {
            return Ok(None);
        };
        let mut id = GroupId([0; 128]);
        // SAFETY: `id` is a place for an id, and outlives the call.
        accepted("an id of a group", unsafe {
            (nccl.get_unique_id)(&raw mut id)
        })?;
        Ok(Some(id))
    }

    /// Joins the group, and returns when all ranks have joined; `None` for a GPU that NCCL cannot
    /// drive.
    ///
    /// # Errors
    /// [`KernelError::Collective`] where NCCL refuses, [`KernelError::Cuda`] where the GPU is lost.
    pub fn join(
        cuda: &Cuda,
        id: GroupId,
        rank: usize,
        ranks: usize,
    ) -> Result<Option<Self>, KernelError> {
        let (Some(nccl), Some(stream)) = (Functions::of_machine(), cuda.raw_stream()) else {
            return Ok(None);
        };
        // Binds the GPU's context to this thread, for which the communicator is made.
        cuda.synchronise()?;
        let mut communicator = std::ptr::null_mut();
        let (number, count) = (rank as c_int, ranks as c_int);
        // SAFETY: `communicator` outlives the call, and the id came from `group_id`.
        let joined = unsafe { (nccl.comm_init_rank)(&raw mut communicator, count, id, number) };
        accepted("joining a group", joined)?;
        Ok(Some(Self {
            nccl,
            cuda: cuda.clone(),
            stream,
            communicator,
            rank,
            ranks,
        }))
    }

    fn reduce<T: Element>(
        &self,
        x: &mut Buffer<T>,
        kind: c_int,
        operation: c_int,
    ) -> Result<(), KernelError> {
        let slice: &Slice<T> = x.unique_on(&self.cuda)?;
        if slice.is_empty() {
            return Ok(());
        }
        let at = slice.address().0 as usize as *mut c_void;
        let stream = self.stream as usize as *mut c_void;
        // SAFETY: the slice has that many elements of that kind on this rank's GPU, lives until
        // later work of the stream, and is reduced in place, as NCCL allows.
        let started = unsafe {
            (self.nccl.all_reduce)(
                at,
                at,
                slice.len(),
                kind,
                operation,
                self.communicator,
                stream,
            )
        };
        accepted("a reduction", started)
    }
}

impl Collective for NcclRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sum(&self, x: &mut Buffer<i64>) -> Result<(), KernelError> {
        self.reduce(x, INT64, SUM)
    }

    fn max(&self, x: &mut Buffer<i32>) -> Result<(), KernelError> {
        self.reduce(x, INT32, MAX)
    }
}

impl Drop for NcclRank {
    fn drop(&mut self) {
        // SAFETY: the communicator came from `comm_init_rank` and is not used again. A refusal
        // leaves it to the end of the process.
        let _ = unsafe { (self.nccl.comm_destroy)(self.communicator) };
    }
}

/// Accepts the statuses 0 (success) and 7 (in progress).
fn accepted(what: &str, status: c_int) -> Result<(), KernelError> {
    match status {
        0 | 7 => Ok(()),
        refusal => Err(KernelError::Collective(format!(
            "NCCL refuses {what}: status {refusal} of ncclResult_t"
        ))),
    }
}
