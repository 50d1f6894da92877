//! Modules of a crate import each other in one direction: a reader of one needs to know those that
//! it imports, and no other. This is checked among the modules of each folder, files and folders
//! alike, with all that lies in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{SourceFile, assert_none, code, source_files};

/// Modules that stand in a circle, as crate, folder and modules in order. The list may only shrink.
const CIRCLES: [(&str, &str, &[&str]); 0] = [];

/// A path of modules in a crate: `["serving", "judge"]`.
type Path = Vec<String>;

/// The modules of a crate and what each names of the others.
#[derive(Default)]
struct Crate {
    /// Each module, and whether it is a folder.
    modules: BTreeMap<Path, bool>,
    /// Names that a module re-exports from another one: `pub use judge::Judge`.
    aliases: BTreeMap<Path, Path>,
    /// Who names what, outside of tests.
    uses: Vec<(Path, Path)>,
}

/// The crate of a file, as the folder of its package, and the file's path in `src`.
fn place(file: &SourceFile) -> Option<(String, String)> {
    let name = file.name();
    let (package, path) = match name.strip_prefix("src/") {
        Some(path) => (".", path),
        None => name.split_once("/src/")?,
    };
    (!package.contains('/')).then(|| (package.to_string(), path.to_string()))
}

/// The module that a file holds.
fn module(path: &str) -> Path {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    let mut parts: Path = stem.split('/').map(str::to_string).collect();
    if parts
        .last()
        .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
    {
        parts.pop();
    }
    parts
}

fn is_test(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// The module that a line opens: `pub(crate) mod name {`.
fn opened(line: &str) -> Option<&str> {
    let (visibility, name) = line.strip_suffix(" {")?.split_once("mod ")?;
    ["", "pub ", "pub(crate) ", "pub(super) "]
        .contains(&visibility)
        .then_some(name)
}

/// The file's code with the module in which each line stands; `mod tests { .. }` is left out.
fn lines(file: &SourceFile, module: &Path) -> Vec<(Path, String)> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut lines = Vec::new();
    for line in file.text.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if open.last().is_some_and(|(start, _)| *start == indent) && text == "}" {
            open.pop();
            continue;
        }
        if let Some(name) = opened(text) {
            open.push((indent, name.to_string()));
            continue;
        }
        if open.iter().any(|(_, name)| name.contains("test")) {
            continue;
        }
        let inner = open.iter().map(|(_, name)| name.clone());
        lines.push((module.iter().cloned().chain(inner).collect(), code(line)));
    }
    lines
}

/// Statements of a file, each on one line: `use a::{b, c};` is what matters here.
fn statements(lines: Vec<(Path, String)>) -> Vec<(Path, String)> {
    let mut statements: Vec<(Path, String)> = Vec::new();
    let mut is_open = false;
    for (module, line) in lines {
        let text = line.trim();
        let starts = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
        if is_open {
            if let Some((_, last)) = statements.last_mut() {
                last.push_str(text);
            }
        } else {
            statements.push((module, text.to_string()));
        }
        let is_use = starts.iter().any(|start| text.starts_with(start));
        is_open = (is_open || is_use) && !text.ends_with(';');
    }
    statements
}

/// The paths that a tree of imports stands for: `a::{b, c::d}` is `a::b` and `a::c::d`; what is
/// renamed has its old name.
fn leaves(tree: &str) -> Vec<String> {
    let Some((start, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or("").trim();
        return vec![name.to_string()];
    };
    let inner = rest.trim().strip_suffix('}').unwrap_or(rest);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in inner.chars() {
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                parts.last_mut().expect("one at least").push(c);
            }
        }
    }
    let parts = parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty());
    parts
        .flat_map(leaves)
        .map(|leaf| format!("{}{leaf}", start.trim()))
        .collect()
}

/// The module or item that a path names, seen from `module`; nothing if it is of another crate.
fn resolve(path: &str, module: &Path) -> Option<Path> {
    let mut parts = path.split("::").peekable();
    let mut base = match *parts.peek()? {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        _ => return None,
    };
    while let Some(part) = parts.next_if(|part| ["crate", "self", "super"].contains(part)) {
        if part == "super" {
            base.pop()?;
        }
    }
    base.extend(parts.filter(|part| *part != "self").map(str::to_string));
    Some(base)
}

/// Paths in code that begin in this crate: `crate::a::b(..)` holds `crate::a::b`.
fn paths(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_part(c));
    let ours = words.filter(|word| {
        ["crate::", "self::", "super::"]
            .iter()
            .any(|start| word.starts_with(start))
    });
    ours.map(|word| word.trim_end_matches(':').to_string())
        .collect()
}

fn crates() -> BTreeMap<String, Crate> {
    let mut crates: BTreeMap<String, Crate> = BTreeMap::new();
    for file in source_files("rs") {
        let Some((package, path)) = place(&file).filter(|(_, path)| !is_test(path)) else {
            continue;
        };
        crates.entry(package).or_default().take(&path, &file);
    }
    crates
}

fn add(known: &mut Crate, module: &Path, statement: &str) {
    let Some((visibility, tree)) = statement
        .split_once("use ")
        .filter(|(visibility, _)| ["", "pub ", "pub(crate) ", "pub(super) "].contains(visibility))
    else {
        let found = paths(statement);
        let found = found.iter().filter_map(|path| resolve(path, module));
        known.uses.extend(found.map(|path| (module.clone(), path)));
        return;
    };
    for leaf in leaves(tree.trim_end_matches(';')) {
        let Some(target) = resolve(&leaf, module).or_else(|| {
            // `pub use inner::Name` in the module that has `inner`.
            let inner: Path = leaf.split("::").map(str::to_string).collect();
            (!visibility.is_empty()).then(|| module.iter().cloned().chain(inner).collect())
        }) else {
            continue;
        };
        if let Some(name) = target.last().filter(|_| !visibility.is_empty()) {
            let alias = module.iter().cloned().chain([name.clone()]).collect();
            known.aliases.insert(alias, target.clone());
        }
        known.uses.push((module.clone(), target));
    }
}

impl Crate {
    /// Takes a file in, by its path in `src`.
    fn take(&mut self, path: &str, file: &SourceFile) {
        let module = module(path);
        for length in 1..=module.len() {
            let is_folder = length < module.len() || path.ends_with("/mod.rs");
            *self.modules.entry(module[..length].to_vec()).or_default() |= is_folder;
        }
        for (module, statement) in statements(lines(file, &module)) {
            add(self, &module, &statement);
        }
    }

    /// The path, with names that modules re-export replaced by the places that they come from.
    fn real(&self, path: &Path) -> Path {
        let mut path = path.clone();
        for _ in 0..8 {
            let step = (1..=path.len()).find_map(|length| {
                let target = self.aliases.get(&path[..length])?;
                let is_step = *target != path[..length];
                is_step.then(|| target.iter().chain(&path[length..]).cloned().collect())
            });
            match step {
                Some(next) => path = next,
                None => break,
            }
        }
        path
    }

    /// Which of the modules in `folder` names which other, with all that lies in each.
    fn edges(&self, folder: &[String]) -> BTreeMap<&str, BTreeSet<String>> {
        let mut edges: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let child = |path: &[String]| {
            let inside = path.strip_prefix(folder)?.first()?.clone();
            let place: Path = folder.iter().cloned().chain([inside.clone()]).collect();
            self.modules.contains_key(&place).then_some(inside)
        };
        for (from, to) in &self.uses {
            let (Some(from), Some(to)) = (child(from), child(&self.real(to))) else {
                continue;
            };
            if from != to {
                let place: Path = folder.iter().cloned().chain([from]).collect();
                let (known, _) = self.modules.get_key_value(&place).expect("a module");
                edges
                    .entry(known.last().expect("a name"))
                    .or_default()
                    .insert(to);
            }
        }
        edges
    }

    /// Modules in `folder` that can be reached from themselves, those of one circle together.
    fn circles(&self, folder: &[String]) -> BTreeSet<Vec<String>> {
        let edges = self.edges(folder);
        let reached = |from: &str| {
            let mut reached = BTreeSet::new();
            let mut open = vec![from.to_string()];
            while let Some(next) = open.pop() {
                for to in edges.get(next.as_str()).into_iter().flatten() {
                    if reached.insert(to.clone()) {
                        open.push(to.clone());
                    }
                }
            }
            reached
        };
        let all: BTreeMap<&str, BTreeSet<String>> = edges
            .keys()
            .map(|module| (*module, reached(module)))
            .collect();
        let together = |module: &&&str| {
            let both = |other: &&String| {
                let back = all.get(other.as_str());
                back.is_some_and(|back| back.contains(**module))
            };
            let circle: Vec<String> = all[**module].iter().filter(both).cloned().collect();
            circle
        };
        let circles = all.keys().map(|module| together(&module));
        circles.filter(|circle| !circle.is_empty()).collect()
    }

    fn folders(&self) -> BTreeSet<Path> {
        let folders = self.modules.iter().filter(|(_, is_folder)| **is_folder);
        let below = folders.map(|(path, _)| path.clone());
        below.chain([Vec::new()]).collect()
    }
}

#[test]
fn modules_import_each_other_in_one_direction() {
    let mut broken = Vec::new();
    let mut listed = CIRCLES.to_vec();
    for (package, known) in crates() {
        for folder in known.folders() {
            let edges = known.edges(&folder);
            for circle in known.circles(&folder) {
                let place = folder.join("/");
                let at = listed.iter().position(|(crate_name, within, modules)| {
                    let is_within = circle.iter().all(|module| modules.contains(&&**module));
                    *crate_name == package && *within == place && is_within
                });
                if let Some(at) = at {
                    let (_, _, modules) = listed.remove(at);
                    if modules.len() > circle.len() {
                        broken.push(format!(
                            "{package}/src/{place}: {circle:?} alone now, put that into the list"
                        ));
                    }
                    continue;
                }
                let steps = circle.iter().map(|module| {
                    let all = edges.get(module.as_str()).into_iter().flatten();
                    let inside: Vec<&str> = all
                        .filter(|to| circle.contains(to))
                        .map(String::as_str)
                        .collect();
                    format!("{module} -> {}", inside.join(", "))
                });
                let steps: Vec<String> = steps.collect();
                broken.push(format!("{package}/src/{place}: {}", steps.join("; ")));
            }
        }
    }
    let gone =
        |entry: &(&str, &str, &[&str])| format!("{entry:?}: no circle, take it off the list");
    broken.extend(listed.iter().map(gone));
    assert_none(&broken, "modules import each other in one direction");
}

/// A crate made of files, each as its path in `src` and its text.
fn made_of(files: &[(&str, &str)]) -> Crate {
    let mut known = Crate::default();
    for (path, text) in files {
        let file = SourceFile {
            path: path.into(),
            text: text.to_string(),
        };
        known.take(path, &file);
    }
    known
}

#[test]
fn circles_are_found() {
    let uses = [
        "use crate::b::{C, d::E};",
        "use super::b::C;",
        "fn f() -> crate::b::C { todo() }",
        "use crate::{\n    b::C,\n};",
        // By a name that the crate re-exports.
        "use crate::C;",
    ];
    for text in uses {
        let files = [
            ("lib.rs", "pub use b::C;"),
            ("a.rs", text),
            ("b.rs", "use crate::a::F;"),
        ];
        let circles = made_of(&files).circles(&[]);
        let both = BTreeSet::from([vec!["a".to_string(), "b".to_string()]]);
        assert_eq!(circles, both, "{text}");
    }
}

#[test]
fn what_is_no_circle_is_none() {
    let uses = [
        // Tests may use what uses them.
        "mod tests {\n    use crate::b::C;\n}",
        // A comment and a text name nothing.
        "// See crate::b::C.",
        "const NAME: &str = \"crate::b::C\";",
        // Another crate.
        "use other::b::C;",
        // A module of its own of the same name.
        "use self::b::C;",
    ];
    for text in uses {
        let files = [("a.rs", text), ("b.rs", "use crate::a::F;")];
        let circles = made_of(&files).circles(&[]);
        assert_eq!(circles, BTreeSet::new(), "{text}");
    }
}
