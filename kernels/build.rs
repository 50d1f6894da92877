//! Finds the CUDA kernels and compiles them: for GPUs if NVRTC is found, and for the host if the
//! feature `emulator` is on.

#[cfg(feature = "emulator")]
#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/images.rs"]
mod images;
#[path = "build/resources.rs"]
mod resources;
#[path = "build/sources.rs"]
mod sources;

// Modules that the crate uses at run time, too.
#[allow(dead_code, unreachable_pub)]
#[path = "src/gpu/arch.rs"]
mod arch;
#[allow(dead_code)]
#[path = "src/gpu/nvrtc.rs"]
mod nvrtc;

use std::env;
use std::path::Path;
use std::process::ExitCode;

fn build() -> Result<(), String> {
    let modules = sources::modules("cuda")?;
    #[cfg(feature = "emulator")]
    emulator::compile(&modules)?;
    let out = env::var_os("OUT_DIR").ok_or("cargo has set no OUT_DIR")?;
    images::embed(&modules, Path::new(&out))
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
