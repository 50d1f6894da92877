//! The kernels that are loaded onto a card: each file when one of its kernels is first launched.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError, RwLock};

use cudarc::driver::{result, sys};

use super::context::{CudaContext, said};
use crate::gpu::arch::CodeTarget;
use crate::gpu::cache::Cache;
use crate::gpu::driver::DriverResult;
use crate::gpu::error::CudaError;
use crate::gpu::images;
use crate::gpu::launch::{Argument, Grid, Kernel};

/// The most arguments of a kernel.
const ARGUMENTS_MAX: usize = 64;

/// The loaded kernels, and where more come from.
pub(super) struct Kernels {
    target: CodeTarget,
    shared_memory_max: u32,
    cache: Cache,
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
    functions: RwLock<HashMap<Kernel, sys::CUfunction>>,
}

impl Kernels {
    pub(super) fn new(target: CodeTarget, shared_memory_max: u32, cache: Cache) -> Self {
        Self {
            target,
            shared_memory_max,
            cache,
            modules: Mutex::default(),
            functions: RwLock::default(),
        }
    }

    /// Puts a launch into the stream.
    pub(super) fn launch(
        &self,
        context: &CudaContext,
        stream: sys::CUstream,
        kernel: Kernel,
        grid: Grid,
        arguments: &[Argument],
    ) -> DriverResult<()> {
        let function = self.function(context, kernel)?;
        let mut pointers = [ptr::null_mut::<c_void>(); ARGUMENTS_MAX];
        if arguments.len() > ARGUMENTS_MAX {
            let reason = format!(
                "{} arguments are more than {ARGUMENTS_MAX}",
                arguments.len()
            );
            return Err(refused(kernel, reason));
        }
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = argument.bytes().as_ptr().cast_mut().cast();
        }
        let [x, y, z] = grid.blocks;
        // SAFETY: the function is of a module that stays loaded; the driver copies the arguments,
        // which are as many and as wide as the kernel's: the emulator checks the same launches.
        // Addresses among them are of slices, whose memory is not given to anyone before this work
        // is done.
        let launched = unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (grid.threads, 1, 1),
                grid.shared,
                stream,
                &mut pointers,
            )
        };
        match launched {
            Err(error)
                if matches!(
                    error.0,
                    sys::CUresult::CUDA_ERROR_INVALID_VALUE
                        | sys::CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
                ) =>
            {
                Err(refused(kernel, format!("{} with {grid:?}", said(error))))
            }
            other => context.done("cuLaunchKernel", other),
        }
    }

    /// The loaded function of a kernel.
    fn function(&self, context: &CudaContext, kernel: Kernel) -> DriverResult<sys::CUfunction> {
        let known = self
            .functions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = known.get(&kernel) {
            return Ok(function);
        }
        drop(known);
        let module = self.module(context, kernel.module)?;
        let name = CString::new(kernel.name);
        let name = name.map_err(|_| refused(kernel, "its name has a zero byte".to_string()))?;
        // SAFETY: the module stays loaded until `end`.
        let function = unsafe { result::module::get_function(module, name) };
        let function = match function {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_FOUND => {
                return Err(refused(kernel, "its file has no such kernel".to_string()));
            }
            other => context.done("cuModuleGetFunction", other)?,
        };
        self.allow_shared_memory(context, function)?;
        let mut known = self
            .functions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.insert(kernel, function);
        Ok(function)
    }

    /// Lets a function ask for as much dynamic shared memory as a block can have: above 48 KiB it
    /// has to be allowed.
    fn allow_shared_memory(
        &self,
        context: &CudaContext,
        function: sys::CUfunction,
    ) -> DriverResult<()> {
        use sys::CUfunction_attribute_enum as Attribute;
        let fixed = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        let fixed = unsafe { result::function::get_function_attribute(function, fixed) };
        let fixed = context.done("cuFuncGetAttribute", fixed)?;
        let most = i32::try_from(self.shared_memory_max).unwrap_or(i32::MAX) - fixed;
        let dynamic = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        let set = unsafe { result::function::set_function_attribute(function, dynamic, most) };
        context.done("cuFuncSetAttribute", set)
    }

    /// The loaded module of a file of kernels.
    fn module(&self, context: &CudaContext, module: &'static str) -> DriverResult<sys::CUmodule> {
        // Held while the module is compiled, so that another thread does not compile it too.
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&loaded) = modules.get(module) {
            return Ok(loaded);
        }
        let code = images::machine_code(module, self.target, &self.cache)?;
        // SAFETY: the image is a whole ELF file, whose header says how long it is; the driver
        // copies it.
        let loaded = unsafe { result::module::load_data(code.as_ptr().cast()) };
        let loaded = context.done("cuModuleLoadData", loaded)?;
        modules.insert(module, loaded);
        Ok(loaded)
    }

    /// Unloads all.
    ///
    /// # Safety
    /// The context is bound, and no kernel runs or is launched again.
    pub(super) unsafe fn end(&self) {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        for source in images::sources() {
            if let Some(module) = modules.remove(source.module) {
                // SAFETY: it was loaded once, and its functions are not launched again.
                let _ = unsafe { result::module::unload(module) };
            }
        }
    }
}

fn refused(kernel: Kernel, reason: String) -> CudaError {
    CudaError::Launch {
        module: kernel.module,
        name: kernel.name,
        reason,
    }
}
