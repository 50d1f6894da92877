//! Machine code of the kernels: in the binary, cached on disk, or compiled on first use.

use miniz_oxide::inflate::decompress_to_vec;

use super::arch::CodeTarget;
use super::cache::Cache;
use super::error::CudaError;
use super::modules::ModuleSource;
use super::nvrtc::{KernelSource, Nvrtc, NvrtcError};

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// Machine code that this binary carries.
struct Image {
    module: &'static str,
    target: &'static str,
    /// Compressed by DEFLATE.
    packed: &'static [u8],
}

/// The files of kernels.
pub fn sources() -> &'static [ModuleSource] {
    SOURCES
}

/// Version of the NVRTC that made the code in this binary; `None` where the binary has no code.
pub fn nvrtc_version() -> Option<(i32, i32)> {
    NVRTC_VERSION
}

/// The resources of each kernel on each target that this binary has code for, one line each:
/// module, kernel, target, registers of a thread, bytes of static shared memory of a block, bytes
/// of spill stores and of spill loads of a thread.
pub fn resources() -> &'static str {
    RESOURCES
}

/// Bytes that the machine code takes in this binary.
pub fn carried_bytes() -> usize {
    IMAGES.iter().map(|image| image.packed.len()).sum()
}

/// The machine code of `module` for `target`: what the binary carries, or what `cache` has, or what
/// NVRTC makes, which `cache` then keeps.
///
/// # Errors
/// [`CudaError::NoKernels`] where none of the three has it.
pub(super) fn machine_code(
    module: &'static str,
    target: CodeTarget,
    cache: &Cache,
) -> Result<Vec<u8>, CudaError> {
    let name = target.name();
    let mut carried = IMAGES.iter();
    let carried = carried.find(|i| i.module == module && i.target == name);
    if let Some(code) = carried.and_then(|image| decompress_to_vec(image.packed).ok()) {
        return Ok(code);
    }
    let no_kernels = |cause: NvrtcError| CudaError::NoKernels {
        module,
        target: target.name(),
        folder: cache.place(),
        cause: Box::new(cause),
    };
    let source = SOURCES.iter().find(|source| source.module == module);
    let source = source.ok_or_else(|| CudaError::Launch {
        module,
        name: "*",
        reason: "there is no such file of kernels".to_string(),
    })?;
    if let Some(code) = cache.read(source, target) {
        return Ok(code);
    }
    let file = format!("{module}.cu");
    let compiled = Nvrtc::find().and_then(|nvrtc| {
        nvrtc.compile(
            KernelSource {
                name: &file,
                text: source.text,
                headers: source.headers,
            },
            target,
        )
    });
    let code = compiled.map_err(no_kernels)?.code;
    cache.write(source, target, &code);
    Ok(code)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// No binary carries code for this target, and every NVRTC can compile for it.
    const MODULE: &str = "rope";

    fn target() -> CodeTarget {
        let target = CodeTarget::of_card((8, 7)).expect("the card is new enough");
        assert!(IMAGES.iter().all(|image| image.target != target.name()));
        target
    }

    #[test]
    fn code_that_nobody_carries_is_compiled_once() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let cache = Cache::at(folder.path());
        if let Err(error) = Nvrtc::find() {
            let text = machine_code(MODULE, target(), &cache).expect_err("there is no compiler");
            let text = text.to_string();
            let place = folder.path().display().to_string();
            let parts = [
                "carries no code of rope.cu for sm_87",
                "CONCORD_NVRTC",
                &place,
            ];
            for part in [&parts[..], &[&error.to_string()]].concat() {
                assert!(text.contains(part), "{text}: lacks {part}");
            }
            return;
        }
        let code = machine_code(MODULE, target(), &cache).expect("it compiles");
        assert_eq!(code[..4], *b"\x7fELF");
        let file = folder.path().join("rope.sm_87");
        let kept = fs::read(&file).expect("it is kept");
        // A corrupt file is compiled anew, and replaced.
        fs::write(&file, &kept[..kept.len() / 2]).expect("the folder can be written");
        assert_eq!(
            machine_code(MODULE, target(), &cache).expect("it compiles"),
            code
        );
        assert_eq!(fs::read(&file).expect("it is kept").len(), kept.len());
        // An undamaged file is used as it is.
        let source = SOURCES
            .iter()
            .find(|s| s.module == MODULE)
            .expect("there is such a file");
        cache.write(source, target(), b"machine code");
        assert_eq!(
            machine_code(MODULE, target(), &cache).expect("it is kept"),
            b"machine code"
        );
    }

    #[test]
    fn carried_code_is_whole() {
        for image in IMAGES {
            let code = decompress_to_vec(image.packed).expect("it was packed by the build");
            assert_eq!(code[..4], *b"\x7fELF", "{}.{}", image.module, image.target);
        }
    }
}
