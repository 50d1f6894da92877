//! NVRTC, NVIDIA's compiler as a library: searched for in the usual places, and asked for machine
//! code.
//!
//! The build script compiles this file too, to make the code that a release carries.

use std::env;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::Library;

use super::arch::CodeTarget;

/// The variable that names the library, or a folder that it lies in.
pub const LIBRARY_VARIABLE: &str = "CONCORD_NVRTC";

/// Names of the library, best first: version 13 knows no card below 7.5.
const NAMES: [&str; 5] = [
    "libnvrtc.so.12",
    "libnvrtc.so.13",
    "libnvrtc.so",
    "nvrtc64_120_0.dll",
    "nvrtc64_130_0.dll",
];

/// What every kernel is compiled with, besides its target. Nothing is fused that the source does
/// not fuse; functions without an annotation are device functions. The last option makes the log
/// list the resources of each kernel.
pub const OPTIONS: [&str; 4] = [
    "--std=c++17",
    "--fmad=false",
    "-default-device",
    "--ptxas-options=-v",
];

/// Why there is no machine code.
#[derive(Debug, thiserror::Error)]
pub enum NvrtcError {
    /// The library is not found.
    #[error(
        "NVRTC is not found: not by the system's loader, nor in any of: {}. Install it, for \
         example by `pip install nvidia-cuda-nvrtc-cu12`, and name its folder \
         in {LIBRARY_VARIABLE}",
        searched.join(", ")
    )]
    NotFound {
        /// Folders that were looked into.
        searched: Vec<String>,
    },
    /// The library cannot be loaded.
    #[error("NVRTC at {path} cannot be loaded: {cause}. Name another in {LIBRARY_VARIABLE}")]
    Load {
        /// Where it lies.
        path: String,
        /// What the loader said.
        cause: String,
    },
    /// This version does not know the target.
    #[error("NVRTC {}.{} at {path} makes no code for {target}: name {} in {LIBRARY_VARIABLE}",
        version.0, version.1,
        if target_is_old(target) { "one of version 12" } else { "a newer one" })]
    UnknownTarget {
        /// Where the library lies.
        path: String,
        /// Major and minor version.
        version: (i32, i32),
        /// What was asked for.
        target: String,
    },
    /// It refuses the source.
    #[error("NVRTC refuses {file} for {target}: {log}")]
    Refused {
        /// The source's name.
        file: String,
        /// What was asked for.
        target: String,
        /// What the compiler said.
        log: String,
    },
    /// A call failed for a reason that is not in the source.
    #[error("NVRTC's {call} failed with code {code}. Name another library in {LIBRARY_VARIABLE}")]
    Call {
        /// The function.
        call: &'static str,
        /// Its result.
        code: c_int,
    },
}

/// What a value of [`LIBRARY_VARIABLE`] names: an empty one, like none, names nothing.
pub fn named_library(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|named| !named.is_empty()).map(PathBuf::from)
}

fn target_is_old(target: &str) -> bool {
    ["sm_61", "sm_62", "sm_70", "sm_72"].contains(&target)
}

/// A file that a kernel includes.
pub type KernelHeader = (&'static str, &'static str);

/// A `.cu` file with all that it includes.
#[derive(Clone, Copy, Debug)]
pub struct KernelSource<'a> {
    /// The file's name.
    pub name: &'a str,
    /// What the file says.
    pub text: &'a str,
    /// Names and texts of what it may include.
    pub headers: &'a [(&'a str, &'a str)],
}

/// What the compiler made.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Machine code, as `cuModuleLoadData` takes it.
    pub code: Vec<u8>,
    /// What the compiler said, with the resources of each kernel.
    pub log: String,
}

/// `nvrtcProgram`.
type Program = *mut c_void;
type SizeOf = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type BytesOf = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// The functions that are used, under NVRTC's names.
struct Functions {
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int,
    target_count: unsafe extern "C" fn(*mut c_int) -> c_int,
    targets: unsafe extern "C" fn(*mut c_int) -> c_int,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    log_size: SizeOf,
    log: BytesOf,
    code_size: SizeOf,
    code: BytesOf,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
}

/// The loaded library. Several threads may compile at the same time.
pub struct Nvrtc {
    path: String,
    version: (i32, i32),
    /// Compute capabilities that it makes code for, as numbers.
    targets: Vec<i32>,
    functions: Functions,
    /// Holds what `functions` point into.
    _library: Library,
}

impl Nvrtc {
    /// The library that [`LIBRARY_VARIABLE`] names, or else the first that is found: in `CUDA_PATH`
    /// and `CUDA_HOME`, by the system's loader, among Python's packages.
    ///
    /// # Errors
    /// [`NvrtcError::NotFound`], with all places; [`NvrtcError::Load`].
    pub fn find() -> Result<Self, NvrtcError> {
        match named_library(env::var_os(LIBRARY_VARIABLE)) {
            Some(named) => Self::named(&named),
            None => Self::usual(),
        }
    }

    /// The library at `named`, or the best one in that folder; no other.
    fn named(named: &Path) -> Result<Self, NvrtcError> {
        if !named.is_dir() {
            return Self::load(named);
        }
        let not_found = || NvrtcError::NotFound {
            searched: vec![named.display().to_string()],
        };
        let path = files_in(named).into_iter().next().ok_or_else(not_found)?;
        Self::load(&path)
    }

    /// The first library that can be loaded from where they usually lie.
    fn usual() -> Result<Self, NvrtcError> {
        let folders = usual_folders();
        let lying = folders.iter().flat_map(|folder| files_in(folder));
        // A broken library must not hide a good one.
        lying
            .chain(NAMES.map(PathBuf::from))
            .find_map(|path| Self::load(&path).ok())
            .ok_or_else(|| NvrtcError::NotFound {
                searched: folders.iter().map(|f| f.display().to_string()).collect(),
            })
    }

    /// The library at `path`.
    ///
    /// # Errors
    /// [`NvrtcError::Load`], [`NvrtcError::Call`].
    pub fn load(path: &Path) -> Result<Self, NvrtcError> {
        let failed = |cause: libloading::Error| NvrtcError::Load {
            path: path.display().to_string(),
            cause: cause.to_string(),
        };
        // SAFETY: loading runs the initialisers of NVIDIA's library, which ask nothing of the
        // process.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        // SAFETY: the types of `Functions` are those of nvrtc.h, unchanged since CUDA 11.2; the
        // library stays loaded as long as they are reachable.
        let functions = unsafe { Functions::of(&library) }.map_err(failed)?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: both write one integer to each pointer.
        unsafe {
            done("nvrtcVersion", (functions.version)(&mut major, &mut minor))?;
            done(
                "nvrtcGetNumSupportedArchs",
                (functions.target_count)(&mut count),
            )?;
        }
        let mut targets = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: it writes as many integers as it has just said.
        done("nvrtcGetSupportedArchs", unsafe {
            (functions.targets)(targets.as_mut_ptr())
        })?;
        Ok(Self {
            path: path.display().to_string(),
            version: (major, minor),
            targets,
            functions,
            _library: library,
        })
    }

    /// Where it was found.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its version, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Whether it makes code for `target`.
    pub fn knows(&self, target: CodeTarget) -> bool {
        self.targets
            .iter()
            .any(|&t| t as i64 == i64::from(target.code()))
    }

    /// Machine code of `source` for `target`.
    ///
    /// # Errors
    /// [`NvrtcError::UnknownTarget`]; [`NvrtcError::Refused`] with the compiler's log.
    pub fn compile(
        &self,
        source: KernelSource<'_>,
        target: CodeTarget,
    ) -> Result<Compiled, NvrtcError> {
        let target_name = target.name();
        if !self.knows(target) {
            return Err(NvrtcError::UnknownTarget {
                path: self.path.clone(),
                version: self.version,
                target: target_name,
            });
        }
        let program = self.program(source)?;
        let options: Vec<CString> = std::iter::once(format!("--gpu-architecture={target_name}"))
            .chain(OPTIONS.map(String::from))
            .map(|option| text(&option))
            .collect();
        let options: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        // SAFETY: the program lives, and the options are as many strings as are counted.
        let code = unsafe {
            (self.functions.compile)(program.0, options.len() as c_int, options.as_ptr())
        };
        let log = self.bytes(
            "nvrtcGetProgramLog",
            self.functions.log_size,
            self.functions.log,
            &program,
        )?;
        let log =
            CStr::from_bytes_until_nul(&log).map_or(String::new(), |l| l.to_string_lossy().into());
        if code != 0 {
            return Err(NvrtcError::Refused {
                file: source.name.to_string(),
                target: target_name,
                log,
            });
        }
        let code = self.bytes(
            "nvrtcGetCUBIN",
            self.functions.code_size,
            self.functions.code,
            &program,
        )?;
        Ok(Compiled { code, log })
    }

    fn program(&self, source: KernelSource<'_>) -> Result<OwnedProgram<'_>, NvrtcError> {
        let (name, body) = (text(source.name), text(source.text));
        let headers: Vec<(CString, CString)> = source
            .headers
            .iter()
            .map(|(n, t)| (text(n), text(t)))
            .collect();
        let names: Vec<*const c_char> = headers.iter().map(|(n, _)| n.as_ptr()).collect();
        let texts: Vec<*const c_char> = headers.iter().map(|(_, t)| t.as_ptr()).collect();
        let mut program = ptr::null_mut();
        // SAFETY: every pointer is to a string that outlives the call, which copies them; there are
        // as many names and texts as are counted.
        let code = unsafe {
            (self.functions.create)(
                &mut program,
                body.as_ptr(),
                name.as_ptr(),
                headers.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        done("nvrtcCreateProgram", code)?;
        Ok(OwnedProgram(program, &self.functions))
    }

    fn bytes(
        &self,
        call: &'static str,
        size: SizeOf,
        get: BytesOf,
        program: &OwnedProgram<'_>,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut len = 0;
        // SAFETY: the program lives; one size is written.
        done(call, unsafe { size(program.0, &mut len) })?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: as many bytes are written as the library has just said.
        done(call, unsafe { get(program.0, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

/// A program that is destroyed when it is dropped.
struct OwnedProgram<'a>(Program, &'a Functions);

impl Drop for OwnedProgram<'_> {
    fn drop(&mut self) {
        // SAFETY: the program was created by the same library, and is not used again.
        unsafe { (self.1.destroy)(&mut self.0) };
    }
}

impl Functions {
    /// # Safety
    /// `library` is NVRTC, and outlives the result.
    unsafe fn of(library: &Library) -> Result<Self, libloading::Error> {
        // SAFETY: each name is of a function of the field's type, as the caller vouches.
        unsafe {
            Ok(Self {
                version: *library.get(b"nvrtcVersion\0")?,
                target_count: *library.get(b"nvrtcGetNumSupportedArchs\0")?,
                targets: *library.get(b"nvrtcGetSupportedArchs\0")?,
                create: *library.get(b"nvrtcCreateProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0")?,
                log: *library.get(b"nvrtcGetProgramLog\0")?,
                code_size: *library.get(b"nvrtcGetCUBINSize\0")?,
                code: *library.get(b"nvrtcGetCUBIN\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
            })
        }
    }
}

fn done(call: &'static str, code: c_int) -> Result<(), NvrtcError> {
    match code {
        0 => Ok(()),
        code => Err(NvrtcError::Call { call, code }),
    }
}

/// A C string. The texts are the project's own: a zero byte would only end one early.
fn text(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// The libraries that lie in `folder`, best first.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let paths = NAMES.map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.is_file()).collect()
}

/// Where toolkits and Python's packages put the library.
fn usual_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let toolkits = ["CUDA_PATH", "CUDA_HOME"]
        .into_iter()
        .filter_map(env::var_os);
    for toolkit in toolkits
        .map(PathBuf::from)
        .chain([PathBuf::from("/usr/local/cuda")])
    {
        folders.extend(["lib64", "lib", "bin", "bin/x64"].map(|folder| toolkit.join(folder)));
    }
    let prefixes = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(env::var_os);
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".local"));
    let shared = ["/usr/local", "/usr"].map(PathBuf::from);
    for prefix in prefixes.map(PathBuf::from).chain(home).chain(shared) {
        folders.extend(python_folders(&prefix));
    }
    folders
}

/// Where the packages of the Pythons under `prefix` put the library.
fn python_folders(prefix: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(prefix.join("lib")) else {
        return Vec::new();
    };
    let mut pythons: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("python3"))
        })
        .collect();
    pythons.sort();
    let mut folders = Vec::new();
    for python in pythons {
        for packages in ["site-packages", "dist-packages"] {
            for library in ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"] {
                folders.push(python.join(packages).join(library));
            }
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs;
    use std::path::PathBuf;

    use super::{Nvrtc, named_library};

    #[test]
    fn an_empty_variable_names_no_library() {
        assert_eq!(named_library(None), None);
        assert_eq!(named_library(Some(OsString::new())), None);
        let named = named_library(Some(OsString::from("folder")));
        assert_eq!(named, Some(PathBuf::from("folder")));
    }

    fn refusal(named: &std::path::Path) -> String {
        match Nvrtc::named(named) {
            Ok(_) => panic!("{} is no NVRTC", named.display()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_folder_without_the_library_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let text = refusal(folder.path());
        assert!(
            text.contains(&folder.path().display().to_string()),
            "{text}"
        );
        assert!(
            text.contains("pip install") && text.contains("CONCORD_NVRTC"),
            "{text}"
        );
    }

    #[test]
    fn a_file_that_is_no_library_is_named() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let file = folder.path().join("libnvrtc.so.12");
        fs::write(&file, "not a library").expect("the folder can be written");
        for named in [folder.path(), &file] {
            let text = refusal(named);
            assert!(text.contains(&file.display().to_string()), "{text}");
            assert!(text.contains("cannot be loaded"), "{text}");
        }
    }
}
