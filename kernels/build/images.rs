//! Compiles every kernel to machine code for every target if NVRTC is found, and writes the tables
//! that the crate includes: images, sources, resources.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use miniz_oxide::deflate::compress_to_vec;

use super::arch::{CodeTarget, TARGETS};
use super::nvrtc::{KernelSource, LIBRARY_VARIABLE, Nvrtc, NvrtcError, OPTIONS, named_library};
use super::resources;
use super::sources::{self, Module};

/// Compilers that run at once: as many as the smallest machine that builds has cores.
const THREADS: usize = 2;

/// Level of DEFLATE: machine code shrinks to a quarter, and higher levels gain little more.
const PACKING_LEVEL: u8 = 6;

/// Writes `images.rs` into `out`, and what it includes.
///
/// # Errors
/// A text with the compiler's log where it refuses a kernel; one that names the file that cannot be
/// read or written; one that names the NVRTC that was asked for and cannot be loaded.
pub fn embed(modules: &[Module], out: &Path) -> Result<(), String> {
    for variable in [LIBRARY_VARIABLE, "CUDA_PATH", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let headers = headers("cuda")?;
    let asked_for = named_library(std::env::var_os(LIBRARY_VARIABLE));
    let nvrtc = match Nvrtc::find() {
        Ok(nvrtc) => Some(nvrtc),
        // An NVRTC that nobody asked for may be absent: the kernels are then compiled when they are
        // used.
        Err(NvrtcError::NotFound { .. }) if asked_for.is_none() => None,
        Err(error) => return Err(error.to_string()),
    };
    let images = match &nvrtc {
        Some(nvrtc) => images(nvrtc, modules, &headers, out)?,
        None => Vec::new(),
    };
    let version = nvrtc.as_ref().map(Nvrtc::version);
    write(
        &out.join("images.rs"),
        &tables(modules, &headers, &images, version)?,
    )?;
    let resources: Vec<&str> = images.iter().map(|i| i.resources.as_str()).collect();
    write(&out.join("resources.txt"), &resources.concat())
}

/// A file that kernels include.
struct Header {
    name: String,
    path: PathBuf,
    text: String,
}

/// Machine code of one module for one target.
struct Image {
    module: String,
    target: String,
    path: PathBuf,
    /// A line for each kernel: see `resources`.
    resources: String,
}

fn headers(folder: &str) -> Result<Vec<Header>, String> {
    let header = |path: PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = sources::read(&path)?;
        Ok(Header { name, path, text })
    };
    sources::files(folder, "cuh")?
        .into_iter()
        .map(header)
        .collect()
}

/// The headers that `text` includes, directly or through another one, in the order of `all`.
fn included<'a>(text: &str, all: &'a [Header]) -> Vec<&'a Header> {
    let mut names = BTreeSet::new();
    let mut open = vec![text];
    while let Some(text) = open.pop() {
        let quoted = text
            .lines()
            .filter_map(|line| line.strip_prefix("#include \""));
        for name in quoted.filter_map(|rest| rest.split('"').next()) {
            if let Some(header) = all.iter().find(|h| h.name == name)
                && names.insert(name)
            {
                open.push(&header.text);
            }
        }
    }
    all.iter()
        .filter(|h| names.contains(h.name.as_str()))
        .collect()
}

fn images(
    nvrtc: &Nvrtc,
    modules: &[Module],
    headers: &[Header],
    out: &Path,
) -> Result<Vec<Image>, String> {
    let (known, unknown): (Vec<CodeTarget>, Vec<CodeTarget>) =
        TARGETS.into_iter().partition(|&t| nvrtc.knows(t));
    for target in unknown {
        let ((major, minor), name) = (nvrtc.version(), target.name());
        println!(
            "cargo::warning=NVRTC {major}.{minor} makes no code for {name}: such cards compile on \
             first use"
        );
    }
    let jobs: Vec<(&Module, CodeTarget)> = modules
        .iter()
        .flat_map(|m| known.iter().map(move |&t| (m, t)))
        .collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some(&(module, target)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let image = image(nvrtc, module, headers, target, out);
            done.lock()
                .expect("no thread panics with the list")
                .push(image);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    let images: Result<Vec<Image>, String> = done
        .into_inner()
        .expect("no thread panics with the list")
        .into_iter()
        .collect();
    let mut images = images?;
    images.sort_by(|a, b| (&a.module, &a.target).cmp(&(&b.module, &b.target)));
    Ok(images)
}

/// The image of one module: that of the last build if nothing that it is made of has changed.
fn image(
    nvrtc: &Nvrtc,
    module: &Module,
    headers: &[Header],
    target: CodeTarget,
    out: &Path,
) -> Result<Image, String> {
    let target_name = target.name();
    let headers = included(&module.text, headers);
    let texts: Vec<(&str, &str)> = headers
        .iter()
        .map(|h| (h.name.as_str(), h.text.as_str()))
        .collect();
    let key = format!(
        "{:?} {OPTIONS:?} {texts:?} {:?}",
        nvrtc.version(),
        module.text
    );
    let file = |extension: &str| out.join(format!("{}.{target_name}.{extension}", module.name));
    let (path, log_path, key_path) = (file("packed"), file("log"), file("key"));
    let made = fs::read_to_string(&key_path).is_ok_and(|made_of| made_of == key) && path.is_file();
    let log = match fs::read_to_string(&log_path) {
        Ok(log) if made => log,
        _ => {
            let name = format!("{}.cu", module.name);
            let source = KernelSource {
                name: &name,
                text: &module.text,
                headers: &texts,
            };
            let compiled = nvrtc.compile(source, target).map_err(|e| e.to_string())?;
            write(&path, &compress_to_vec(&compiled.code, PACKING_LEVEL))?;
            write(&log_path, &compiled.log)?;
            write(&key_path, &key)?;
            compiled.log
        }
    };
    Ok(Image {
        resources: resources::lines(&module.name, &target_name, &log)?,
        module: module.name.clone(),
        target: target_name,
        path,
    })
}

/// The Rust source of the tables that `src/cuda/images.rs` includes.
fn tables(
    modules: &[Module],
    headers: &[Header],
    images: &[Image],
    version: Option<(i32, i32)>,
) -> Result<String, String> {
    let mut text = String::new();
    let absolute = |path: &Path| {
        fs::canonicalize(path).map_err(|e| format!("{} cannot be found: {e}", path.display()))
    };
    text += "static SOURCES: &[ModuleSource] = &[\n";
    for module in modules {
        let path = absolute(&module.path)?;
        write!(
            text,
            "    ModuleSource {{ module: {:?}, text: include_str!({path:?}), headers: &[",
            module.name
        )
        .expect("a string takes all");
        for header in included(&module.text, headers) {
            let path = absolute(&header.path)?;
            write!(text, "({:?}, include_str!({path:?})), ", header.name)
                .expect("a string takes all");
        }
        text += "] },\n";
    }
    text += "];\n\nstatic IMAGES: &[Image] = &[\n";
    for image in images {
        let (module, target, path) = (&image.module, &image.target, &image.path);
        writeln!(
            text,
            "    Image {{ module: {module:?}, target: {target:?}, \
             packed: include_bytes!({path:?}) }},"
        )
        .expect("a string takes all");
    }
    writeln!(
        text,
        "];\n\nconst NVRTC_VERSION: Option<(i32, i32)> = {version:?};\n\
         static RESOURCES: &str = include_str!(concat!(env!(\"OUT_DIR\"), \"/resources.txt\"));"
    )
    .expect("a string takes all");
    Ok(text)
}

/// Writes a file unless it has that content already, so that cargo sees only real changes.
fn write(path: &Path, content: &(impl AsRef<[u8]> + ?Sized)) -> Result<(), String> {
    let content = content.as_ref();
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    fs::write(path, content).map_err(|e| format!("{} cannot be written: {e}", path.display()))
}
