//! Every kernel compiles for every target, and takes the resources that `cuda/resources.md` lists.
//!
//! The build compiles them where it finds NVRTC; where it found none, these tests say so and pass.
//! After a change of kernels, `CONCORD_WRITE_TABLE=1` writes the table anew.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use concord_kernels::cuda::arch::TARGETS;
use concord_kernels::cuda::images;

/// What a kernel takes on one target.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Resources {
    registers: u32,
    shared: u32,
    spilled: u32,
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registers,
            shared,
            spilled,
        } = self;
        write!(f, "{registers}/{shared}/{spilled}")
    }
}

impl Resources {
    fn parse(cell: &str) -> Option<Self> {
        let numbers: Option<Vec<u32>> = cell.split('/').map(|n| n.parse().ok()).collect();
        match numbers?[..] {
            [registers, shared, spilled] => Some(Self {
                registers,
                shared,
                spilled,
            }),
            _ => None,
        }
    }

    fn exceed(self, other: Self) -> bool {
        self.registers > other.registers
            || self.shared > other.shared
            || self.spilled > other.spilled
    }
}

/// Kernels, as `module::kernel`, and what each takes by target.
type Table = BTreeMap<String, BTreeMap<String, Resources>>;

fn compiled() -> Table {
    let mut table = Table::new();
    for line in images::resources().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let &[module, kernel, target, ref numbers @ ..] = &words[..] else {
            panic!("a line of resources has three names: {line}");
        };
        let numbers: Vec<u32> = numbers.iter().map(|n| n.parse().expect(line)).collect();
        let &[registers, shared, stores, loads] = &numbers[..] else {
            panic!("a line of resources has four numbers: {line}");
        };
        let resources = Resources {
            registers,
            shared,
            spilled: stores + loads,
        };
        let kernel = table.entry(format!("{module}::{kernel}")).or_default();
        assert!(
            kernel.insert(target.to_string(), resources).is_none(),
            "{line} stands twice"
        );
    }
    table
}

/// The targets that the NVRTC of this build knows; none where it found no NVRTC, which is printed.
fn targets() -> Option<Vec<String>> {
    let Some((major, minor)) = images::nvrtc_version() else {
        println!(
            "skipped: no NVRTC was found when this was built; name its folder in CONCORD_NVRTC"
        );
        let named = env::var_os("CONCORD_NVRTC").filter(|named| !named.is_empty());
        assert!(
            named.is_none(),
            "CONCORD_NVRTC is set, and the build did not use it"
        );
        return None;
    };
    let known = |code: u32| match code {
        61 | 70 => major < 13,
        100 | 120 => (major, minor) >= (12, 8),
        _ => true,
    };
    let targets = TARGETS.iter().filter(|target| known(target.code()));
    Some(targets.map(|target| target.name()).collect())
}

#[test]
fn every_kernel_compiles_for_every_target() {
    let Some(targets) = targets() else { return };
    let table = compiled();
    for source in images::sources() {
        let prefix = format!("{}::", source.module);
        assert!(
            table.keys().any(|kernel| kernel.starts_with(&prefix)),
            "{}.cu has no kernel in the images",
            source.module
        );
    }
    for (kernel, resources) in &table {
        for target in &targets {
            let limits = resources.get(target);
            let Resources { registers, .. } =
                *limits.unwrap_or_else(|| panic!("{kernel} is not compiled for {target}"));
            assert!(
                (1..=255).contains(&registers),
                "{kernel} on {target}: {registers} registers"
            );
        }
    }
    println!(
        "{} kernels for {} targets, {} bytes in the binary",
        table.len(),
        targets.len(),
        images::carried_bytes()
    );
}

#[test]
fn resources_are_those_of_the_table() {
    let Some(targets) = targets() else { return };
    let compiled = compiled();
    let text = text(&compiled, &targets);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cuda/resources.md");
    if env::var_os("CONCORD_WRITE_TABLE").is_some() {
        fs::write(&path, text).expect("the table can be written");
        return;
    }
    let committed = fs::read_to_string(&path).expect("the table can be read");
    if committed.lines().next() != text.lines().next() {
        println!("skipped: another NVRTC than the table's takes other registers");
        return;
    }
    let differences = differences(&parse(&committed), &compiled);
    assert!(
        differences.is_empty(),
        "kernels take other resources than cuda/resources.md says (registers/shared/spilled):\n{}\n\
         Mend what is worse; then run this test with CONCORD_WRITE_TABLE=1, and commit the table",
        differences.join("\n")
    );
}

fn text(table: &Table, targets: &[String]) -> String {
    let (major, minor) = images::nvrtc_version().unwrap_or_default();
    let mut text = format!(
        "# What kernels take, compiled by NVRTC {major}.{minor}\n\n\
         Registers of a thread / bytes of static shared memory of a block / bytes that a thread \
         spills, stores and loads together.\n\
         Written and checked by `kernels/tests/cuda_images.rs`.\n\n\
         | kernel | {} |\n|---|{}\n",
        targets.join(" | "),
        "---|".repeat(targets.len())
    );
    for (kernel, resources) in table {
        let cells = targets
            .iter()
            .map(|t| resources.get(t).map_or(String::new(), Resources::to_string));
        let cells: Vec<String> = cells.collect();
        text += &format!("| {kernel} | {} |\n", cells.join(" | "));
    }
    text
}

fn parse(text: &str) -> Table {
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let mut rows = rows.map(|row| {
        let cells = row
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_string());
        cells.collect::<Vec<String>>()
    });
    let targets = rows.next().unwrap_or_default();
    let cells = |row: Vec<String>| {
        let cells = targets.iter().zip(&row).skip(1);
        let cells = cells.filter_map(|(t, cell)| Some((t.clone(), Resources::parse(cell)?)));
        (row[0].clone(), cells.collect())
    };
    rows.skip(1).map(cells).collect()
}

fn differences(committed: &Table, compiled: &Table) -> Vec<String> {
    let nothing = BTreeMap::new();
    let mut differences = Vec::new();
    let mut names: Vec<&String> = committed.keys().chain(compiled.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let before = committed.get(name).unwrap_or(&nothing);
        let after = compiled.get(name).unwrap_or(&nothing);
        for target in TARGETS.map(|target| target.name()) {
            let difference = match (before.get(&target), after.get(&target)) {
                (None, None) => continue,
                (Some(before), Some(after)) if before == after => continue,
                (Some(before), Some(after)) if after.exceed(*before) => {
                    format!("worse: {before} was, {after} is")
                }
                (Some(before), Some(after)) => format!("better: {before} was, {after} is"),
                (Some(before), None) => format!("gone: {before} was"),
                (None, Some(after)) => format!("new: {after} is"),
            };
            differences.push(format!("{name} on {target}: {difference}"));
        }
    }
    differences
}

#[test]
fn a_regression_is_told_from_a_gain() {
    let table = |cells: &str| {
        parse(&format!(
            "| kernel | sm_61 | sm_80 |\n|---|---|---|\n| a::b | {cells} |\n"
        ))
    };
    let before = table("32/0/0 | 40/1024/0");
    assert_eq!(before["a::b"].len(), 2);
    let cases = [
        ("32/0/0 | 40/1024/0", None),
        ("33/0/0 | 40/1024/0", Some("sm_61: worse")),
        ("31/0/8 | 40/1024/0", Some("sm_61: worse")),
        ("32/0/0 | 40/2048/0", Some("sm_80: worse")),
        ("32/0/0 | 39/1024/0", Some("sm_80: better")),
        ("32/0/0 | ", Some("sm_80: gone")),
    ];
    for (after, expected) in cases {
        let found = differences(&before, &table(after));
        match expected {
            None => assert!(found.is_empty(), "{after}: {found:?}"),
            Some(text) => assert!(
                found.len() == 1 && found[0].contains(text),
                "{after}: {found:?}"
            ),
        }
    }
    assert_eq!(
        differences(&Table::new(), &before).len(),
        2,
        "new kernels are named"
    );
}
