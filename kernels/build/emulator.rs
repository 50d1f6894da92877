//! Compiles the kernels for the host: one C++ unit per module, or one per generation of GPUs where
//! they differ, together with the runtime in `emulator/`.

#[path = "generations.rs"]
mod generations;
#[path = "stage.rs"]
mod stage;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::sources::{self, Module};

/// A file to compile.
struct Unit {
    /// Name of its object.
    name: String,
    source: PathBuf,
    /// Text of the source and of all that it includes: the unit is compiled again when it changes.
    text: String,
    arch: Option<u32>,
}

/// A kernel, as the line `KERNEL(threads) name(arguments) {` declares it.
struct Kernel {
    name: String,
    /// The most threads of its blocks, as the source writes it.
    threads: String,
}

/// Compiles `modules`, the emulator's own test kernels, and the runtime, into a static library.
///
/// # Errors
/// A text: what the compiler said, a file that cannot be read, or a kernel's name that is used
/// twice.
pub fn compile(modules: &[Module]) -> Result<(), String> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let selftest = sources::modules("emulator")?;
    refuse_doubles(modules.iter().chain(&selftest))?;
    let copies = stage::copies(&out)?;
    let mut units = Vec::new();
    let mut table = Table::default();
    for module in modules.iter().chain(&selftest) {
        let text = with_includes(&copies, &file_name(&module.path))?;
        let kernels = kernels(&module.text);
        if kernels.is_empty() {
            continue;
        }
        let copy = copies.join(file_name(&module.path));
        for arch in generations::apart(&copy, &text, |arch| compiler(arch, &copies))? {
            let symbol = table.add(&module.name, arch);
            let source = copies.join(format!("{symbol}.cpp"));
            let wrapper = wrapper(module, &kernels, arch, &symbol);
            write(&source, &wrapper)?;
            units.push(Unit {
                name: symbol,
                source,
                text: wrapper + &text,
                arch,
            });
        }
    }
    units.extend(runtime(&copies, &table)?);
    let objects = objects(&units, &copies, &out)?;
    let mut library = cc::Build::new();
    library.cpp(true).objects(objects);
    let compiled = library.try_compile("concord_emulator");
    compiled.map_err(|cause| format!("the emulator cannot be put into a library: {cause}"))
}

/// The units of the runtime: those of `emulator/`, and the table of modules.
fn runtime(copies: &Path, table: &Table) -> Result<Vec<Unit>, String> {
    let table_name = "concord_emulated_table.cpp".to_string();
    write(&copies.join(&table_name), &table.text())?;
    let paths = sources::files("emulator", "cpp")?;
    let names = paths.iter().map(|path| file_name(path));
    let unit = |name: String| {
        Ok(Unit {
            text: with_includes(copies, &name)?,
            source: copies.join(&name),
            name,
            arch: None,
        })
    };
    names.chain([table_name]).map(unit).collect()
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The C++ text around a module. Everything but the table of its kernels has internal linkage.
fn wrapper(module: &Module, kernels: &[Kernel], arch: Option<u32>, symbol: &str) -> String {
    let mut entries = String::new();
    for Kernel { name, threads } in kernels {
        let _ = writeln!(
            entries,
            "    emulator::Caller<{name}>::entry(\"{name}\", {threads}),"
        );
    }
    format!(
        "#include \"device_on_cpu.h\"\n\
         namespace {{\n\
         #include \"{}\"\n\
         const emulator::Entry entries[] = {{\n{entries}}};\n\
         }}\n\
         extern const emulator::Module {symbol};\n\
         const emulator::Module {symbol} = {{\"{}\", entries, {}, {}}};\n",
        file_name(&module.path),
        module.name,
        kernels.len(),
        arch.unwrap_or(0)
    )
}

/// The list of all modules, for `concord_emulator_modules`.
#[derive(Default)]
struct Table {
    symbols: Vec<String>,
}

impl Table {
    /// Adds a module; gives the name of its symbol.
    fn add(&mut self, module: &str, arch: Option<u32>) -> String {
        let arch = arch.map_or(String::new(), |arch| format!("_sm_{arch}"));
        let symbol = format!("concord_emulated_{module}{arch}");
        self.symbols.push(symbol.clone());
        symbol
    }

    fn text(&self) -> String {
        let mut text = String::from("#include \"launch.h\"\n");
        for symbol in &self.symbols {
            let _ = writeln!(text, "extern const emulator::Module {symbol};");
        }
        let pointers: Vec<String> = self.symbols.iter().map(|s| format!("&{s}")).collect();
        let _ = write!(
            text,
            "static const emulator::Module *const modules[] = {{{}}};\n\
             extern \"C\" const emulator::Module *const *\
             concord_emulator_modules(uint64_t *count) {{\n\
             *count = {};\n\
             return modules;\n\
             }}\n",
            pointers.join(", "),
            pointers.len()
        );
        text
    }
}

/// Compiles `units` to objects, several at a time; units that have not changed are left alone.
fn objects(units: &[Unit], copies: &Path, out: &Path) -> Result<Vec<PathBuf>, String> {
    let jobs = std::env::var("NUM_JOBS").ok();
    let jobs = jobs.and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
            compile_unit(unit, copies, out)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join());
        done.map(|result| result.unwrap_or_else(|_| Err("a thread of the build died".to_string())))
            .collect::<Result<Vec<()>, String>>()
    })?;
    Ok(units.iter().map(|unit| object_of(unit, out)).collect())
}

fn object_of(unit: &Unit, out: &Path) -> PathBuf {
    out.join(format!("{}.o", unit.name))
}

fn compile_unit(unit: &Unit, copies: &Path, out: &Path) -> Result<(), String> {
    let object = object_of(unit, out);
    let mut command = compiler(unit.arch, copies)?;
    command.arg("-c").arg(&unit.source).arg("-o").arg(&object);
    let stamp = out.join(format!("{}.stamp", unit.name));
    let made_of = format!("{command:?}\n{}", unit.text);
    if object.exists() && fs::read_to_string(&stamp).is_ok_and(|before| before == made_of) {
        return Ok(());
    }
    let result = command.output();
    let result = result.map_err(|cause| format!("the C++ compiler does not start: {cause}"))?;
    if !result.status.success() {
        return Err(format!(
            "{} does not compile for the emulated GPU:\n{}",
            unit.name,
            String::from_utf8_lossy(&result.stderr)
        ));
    }
    write(&stamp, &made_of)
}

/// A C++ compiler that rounds every float operation by itself, and wraps integers as GPUs do.
fn compiler(arch: Option<u32>, copies: &Path) -> Result<Command, String> {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .pic(true)
        .opt_level(2)
        .debug(false);
    build.include(copies);
    build.define("CONCORD_EMULATED", None);
    if let Some(arch) = arch {
        build.define("ARCH", arch.to_string().as_str());
    }
    for flag in [
        "-ffp-contract=off",
        "-fno-strict-aliasing",
        "-fwrapv",
        // Lets the compiler use instructions for functions such as sqrtf: no code here reads errno.
        "-fno-math-errno",
        "-fno-exceptions",
        "-ftls-model=initial-exec",
        "-fdiagnostics-color=never",
        "-Wall",
        "-Wextra",
        // Kernels unroll by a pragma of NVRTC, and units use only a part of what they include.
        "-Wno-unknown-pragmas",
        "-Wno-unused-function",
        "-Wno-unused-variable",
    ] {
        build.flag(flag);
    }
    let tool = build.try_get_compiler();
    let tool = tool.map_err(|cause| {
        format!("the feature `emulator` needs a C++ compiler, such as g++ or clang++: {cause}")
    })?;
    Ok(tool.to_command())
}

fn kernels(text: &str) -> Vec<Kernel> {
    let declared = text.lines().filter_map(|line| {
        let (threads, rest) = line.strip_prefix("KERNEL(")?.split_once(')')?;
        let (name, _) = rest.trim_start().split_once('(')?;
        Some(Kernel {
            name: name.to_string(),
            threads: threads.to_string(),
        })
    });
    declared.collect()
}

fn refuse_doubles<'a>(modules: impl Iterator<Item = &'a Module>) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for module in modules {
        for kernel in kernels(&module.text) {
            if !names.insert(kernel.name.clone()) {
                let path = module.path.display();
                let name = kernel.name;
                return Err(format!(
                    "the kernel {name} of {path} stands twice: name it anew"
                ));
            }
        }
    }
    Ok(())
}

/// The text of a copy and of every copy that it includes, each once.
fn with_includes(copies: &Path, name: &str) -> Result<String, String> {
    let mut all = String::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![name.to_string()];
    while let Some(name) = open.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let text = sources::read(&copies.join(&name))?;
        for line in text.lines() {
            let rest = line.strip_prefix("#include \"");
            let included = rest.and_then(|rest| rest.split_once('"'));
            open.extend(included.map(|(name, _)| name.to_string()));
        }
        all += &text;
    }
    Ok(all)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|cause| format!("{} cannot be written: {cause}", path.display()))
}
