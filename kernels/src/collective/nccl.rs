//! Ranks that are GPUs of one host, by NCCL where the machine has it. Not yet run on a GPU.

use std::ffi::c_void;

use cudarc::nccl::{result, sys};

use super::Collective;
use crate::cuda::{Cuda, Element, Slice};
use crate::{Buffer, KernelError};

/// A rank of a group of GPUs.
pub struct NcclRank {
    cuda: Cuda,
    stream: u64,
    communicator: sys::ncclComm_t,
    rank: usize,
    ranks: usize,
}

// SAFETY: a communicator may be used from any thread, one call at a time; each rank has its own, and
// a rank is driven by one thread.
unsafe impl Send for NcclRank {}
// SAFETY: as above: calls on one rank are put into one stream in the order in which they are made.
unsafe impl Sync for NcclRank {}

/// What a group is known by.
#[derive(Clone, Copy)]
pub struct GroupId(sys::ncclUniqueId);

// SAFETY: 128 bytes of plain data.
unsafe impl Send for GroupId {}

impl NcclRank {
    /// An id for a new group; none where this machine has no NCCL.
    ///
    /// # Errors
    /// [`KernelError::Collective`] where NCCL gives none.
    pub fn group_id() -> Result<Option<GroupId>, KernelError> {
        // SAFETY: loading the library runs its initialisers, which ask nothing of the process.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let id = result::get_uniqueid().map_err(|error| refused("an id of a group", &error))?;
        Ok(Some(GroupId(id)))
    }

    /// Joins the group; returns when all ranks have. None for a GPU that NCCL cannot drive.
    ///
    /// # Errors
    /// [`KernelError::Collective`] where NCCL refuses, [`KernelError::Cuda`] where the GPU is lost.
    pub fn join(
        cuda: &Cuda,
        id: GroupId,
        rank: usize,
        ranks: usize,
    ) -> Result<Option<Self>, KernelError> {
        let Some(stream) = cuda.raw_stream() else {
            return Ok(None);
        };
        // Binds the GPU's context to this thread, for which the communicator is made.
        cuda.synchronise()?;
        let mut communicator = std::ptr::null_mut();
        // SAFETY: `communicator` outlives the call, and the id came from `group_id`.
        unsafe { result::comm_init_rank(&raw mut communicator, ranks as i32, id.0, rank as i32) }
            .map_err(|error| refused("joining a group", &error))?;
        Ok(Some(Self {
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
        kind: sys::ncclDataType_t,
        operation: sys::ncclRedOp_t,
    ) -> Result<(), KernelError> {
        let slice: &Slice<T> = x.unique_on(&self.cuda)?;
        if slice.is_empty() {
            return Ok(());
        }
        let at = slice.address().0 as usize as *mut c_void;
        let stream = self.stream as usize as sys::cudaStream_t;
        // SAFETY: the slice has that many elements of that kind on this rank's GPU, lives until
        // later work of the stream, and is reduced in place, as NCCL allows.
        let started = unsafe {
            result::all_reduce(
                at,
                at,
                slice.len(),
                kind,
                operation,
                self.communicator,
                stream,
            )
        };
        started.map_err(|error| refused("a reduction", &error))?;
        Ok(())
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
        let (kind, sum) = (sys::ncclDataType_t::ncclInt64, sys::ncclRedOp_t::ncclSum);
        self.reduce(x, kind, sum)
    }

    fn max(&self, x: &mut Buffer<i32>) -> Result<(), KernelError> {
        let (kind, max) = (sys::ncclDataType_t::ncclInt32, sys::ncclRedOp_t::ncclMax);
        self.reduce(x, kind, max)
    }
}

impl Drop for NcclRank {
    fn drop(&mut self) {
        // SAFETY: the communicator came from `comm_init_rank` and is not used again. A refusal leaves
        // it to the end of the process.
        let _ = unsafe { result::comm_destroy(self.communicator) };
    }
}

fn refused(what: &str, error: &result::NcclError) -> KernelError {
    KernelError::Collective(format!("NCCL refuses {what}: {:?}", error.0))
}
