//! The licences of all dependencies, of every platform, and where they come from.

use crate::Outcome;
use crate::step::{cargo, printed};

/// Each lets a binary under Apache-2.0 contain the code, and asks at most that it be named.
const ALLOWED: [&str; 10] = [
    "Apache-2.0",
    // A part of zstd.
    "BSD-2-Clause",
    "BSD-3-Clause",
    // The clipboard of the line editor, on Windows.
    "BSL-1.0",
    // A hash in a macro of `ahash`, which runs while `parquet` is compiled.
    "CC0-1.0",
    // The list of root certificates.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Weak copyleft, file by file: these are used as they come.
const EXCEPTIONS: [(&str, &str); 1] = [("option-ext", "MPL-2.0")];

/// Checks every package that `Cargo.lock` can bring into a build.
///
/// # Errors
/// Each package whose licence is not allowed, or that does not come from crates.io.
pub fn check() -> Outcome {
    println!("\n== licences");
    let arguments = [
        "tree",
        "--locked",
        "--workspace",
        "--all-features",
        "--target",
        "all",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
    ];
    let list = printed(&mut cargo(&arguments))?;
    let mut lines: Vec<&str> = list
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    let packages: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split_once('|'))
        .collect();
    let faults: Vec<String> = packages.iter().filter_map(|(p, l)| fault(p, l)).collect();
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    println!("-- licences: {} packages", packages.len());
    Ok(())
}

/// What is wrong with a package; `package` as cargo prints it: name, version, and its source if
/// that is not crates.io.
fn fault(package: &str, licence: &str) -> Option<String> {
    let mut words = package.split(' ');
    let name = words.next().unwrap_or("");
    let source = words.find(|word| word.starts_with('(') && *word != "(proc-macro)");
    match source {
        Some(source) if source.contains("://") => {
            return Some(format!("{package} does not come from crates.io"));
        }
        // A folder: ours.
        Some(_) => return None,
        None => {}
    }
    let allows =
        |licence: &str| ALLOWED.contains(&licence) || EXCEPTIONS.contains(&(name, licence));
    let allowed = Expression::new(licence).holds(&allows);
    (!allowed).then(|| {
        format!(
            "{package} is under \"{licence}\": allow it in xtask/src/licences.rs, with why, or \
                 take another crate"
        )
    })
}

/// An expression of SPDX: licences with `OR`, `AND`, `WITH` and parentheses; `/` is an old `OR`.
struct Expression {
    words: Vec<String>,
    next: usize,
}

impl Expression {
    fn new(text: &str) -> Self {
        let spaced = text
            .replace('(', " ( ")
            .replace(')', " ) ")
            .replace('/', " OR ");
        let words = spaced.split_whitespace().map(str::to_string).collect();
        Self { words, next: 0 }
    }

    /// Whether it holds if `allows` says which licences do. What is no expression does not hold.
    fn holds(mut self, allows: &impl Fn(&str) -> bool) -> bool {
        self.any(allows) == Some(true) && self.next == self.words.len()
    }

    fn takes(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.next).is_some_and(|next| next == word);
        self.next += usize::from(is_next);
        is_next
    }

    fn any(&mut self, allows: &impl Fn(&str) -> bool) -> Option<bool> {
        let mut holds = self.every(allows)?;
        while self.takes("OR") {
            holds |= self.every(allows)?;
        }
        Some(holds)
    }

    fn every(&mut self, allows: &impl Fn(&str) -> bool) -> Option<bool> {
        let mut holds = self.one(allows)?;
        while self.takes("AND") {
            holds &= self.one(allows)?;
        }
        Some(holds)
    }

    fn one(&mut self, allows: &impl Fn(&str) -> bool) -> Option<bool> {
        if self.takes("(") {
            let holds = self.any(allows)?;
            return self.takes(")").then_some(holds);
        }
        let licence = self.words.get(self.next)?.clone();
        self.next += 1;
        // An exception to a licence only gives more rights.
        if self.takes("WITH") {
            self.next += 1;
        }
        Some(allows(&licence))
    }
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn a_licence_is_allowed_if_a_choice_is() {
        let allowed = [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ];
        for licence in allowed {
            assert_eq!(fault("some v1.0.0", licence), None, "{licence}");
        }
        let refused = [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND GPL-3.0",
            "MIT OR",
            "(MIT",
            "MIT MIT",
            "MPL-2.0",
        ];
        for licence in refused {
            let fault = fault("some v1.0.0", licence).unwrap_or_default();
            assert!(fault.contains("some v1.0.0"), "{licence}: {fault}");
        }
    }

    #[test]
    fn an_exception_is_for_its_package_alone() {
        assert_eq!(fault("option-ext v0.2.0", "MPL-2.0"), None);
        assert!(fault("option v0.2.0", "MPL-2.0").is_some());
    }

    #[test]
    fn a_package_comes_from_the_registry_or_from_here() {
        assert_eq!(fault("ours v0.1.0 (/some/folder)", ""), None);
        assert!(fault("theirs v0.1.0 (https://host/theirs#1)", "MIT").is_some());
        assert_eq!(fault("macro v0.1.0 (proc-macro)", "MIT"), None);
        assert!(fault("macro v0.1.0 (proc-macro)", "GPL-3.0").is_some());
    }
}
