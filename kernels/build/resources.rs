//! The resources of a multiprocessor that each kernel takes, read from the compiler's log.

use std::fmt::Write as _;

/// What the log says of one kernel.
#[derive(Default)]
struct Resources {
    kernel: String,
    registers: u32,
    shared: u32,
    spill_stores: u32,
    spill_loads: u32,
}

/// A line for each kernel of the log, by name: module, kernel, target, registers of a thread, bytes
/// of static shared memory of a block, bytes of spill stores and of spill loads of a thread.
///
/// # Errors
/// A text with the log where it names no kernel: the compiler has changed the log's format.
pub fn lines(module: &str, target: &str, log: &str) -> Result<String, String> {
    let mut kernels: Vec<Resources> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            kernels.push(Resources {
                kernel: rest.split('\'').next().unwrap_or_default().to_string(),
                ..Resources::default()
            });
        } else if let Some(kernel) = kernels.last_mut() {
            // Functions that are not inlined spill on behalf of the kernel above them.
            kernel.spill_stores += number_before(line, " bytes spill stores");
            kernel.spill_loads += number_before(line, " bytes spill loads");
            kernel.shared += number_before(line, " bytes smem");
            kernel.registers = kernel.registers.max(number_before(line, " registers"));
        }
    }
    if kernels.is_empty() || kernels.iter().any(|k| k.registers == 0) {
        return Err(format!(
            "the log of {module}.cu for {target} does not say what its kernels take: {log}"
        ));
    }
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    let mut text = String::new();
    for k in kernels {
        let Resources {
            kernel,
            registers,
            shared,
            spill_stores,
            spill_loads,
        } = k;
        writeln!(
            text,
            "{module} {kernel} {target} {registers} {shared} {spill_stores} {spill_loads}"
        )
        .expect("a string takes all");
    }
    Ok(text)
}

/// The number before `unit`; 0 where the line does not have it.
fn number_before(line: &str, unit: &str) -> u32 {
    let Some((before, _)) = line.split_once(unit) else {
        return 0;
    };
    let number = before.rsplit(|c: char| !c.is_ascii_digit()).next();
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}
