//! The README, as a reader follows it: every command, in its order, in a folder that has nothing
//! but what the commands before it have left there.
#![cfg(all(unix, feature = "demo"))]

mod page;
mod shell;
mod ways;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;

use shell::Shell;
use ways::{WAYS, Way};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Ports that nobody listens at, no two the same.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A shell whose reader puts in this machine for HOST and ME, and takes other ports, as those of
/// the page may be in use here.
fn reader() -> Shell {
    let mut shell = Shell::new();
    for name in ["HOST", "ME"] {
        shell.substitute(name, "127.0.0.1");
    }
    let [pool, worker, api] = free_ports();
    for (port, free) in [(7700, pool), (7701, worker), (8000, api)] {
        shell.substitute(&format!(":{port}"), format!(":{free}"));
    }
    // The page leaves the API at its default port.
    let serve = "concord serve ";
    shell.substitute(serve, format!("{serve}--listen 127.0.0.1:{api} "));
    shell
}

#[test]
fn every_command_does_what_the_page_says() {
    let page = file("README.md");
    let mut shell = reader();
    for block in page::blocks(&page) {
        if block.language == "yaml" {
            shell.save("job.yaml", &block.lines.join("\n"));
        }
    }
    let mut unused: BTreeSet<&str> = WAYS.iter().map(|(command, _)| *command).collect();
    for command in page::commands(&page) {
        let known = WAYS.iter().find(|(known, _)| *known == command);
        let Some((known, way)) = known else {
            panic!("README.md has a command that tests/readme/ways.rs does not know: {command}");
        };
        unused.remove(known);
        println!("$ {command}");
        follow(&mut shell, &command, way);
    }
    shell.stop_services();
    assert!(unused.is_empty(), "README.md has no longer {unused:?}");
}

fn follow(shell: &mut Shell, command: &str, way: &Way) {
    match way {
        Way::Says(words) => goes_well(shell, command, "", words),
        Way::AsBinary(shorter, words) => goes_well(shell, shorter, "", words),
        Way::Typed(typed, words) => goes_well(shell, command, typed, words),
        Way::Serves(word) => {
            let line = shell.serve(command, word);
            // A coordinator says its key, which the reader puts in for KEY.
            if let Some((key, _)) = line
                .split("concord://")
                .nth(1)
                .and_then(|at| at.split_once('@'))
            {
                shell.substitute("KEY@", format!("{key}@"));
            }
        }
        Way::ServesAlone(word) => {
            shell.stop_services();
            shell.serve(command, word);
        }
        Way::NeedsGpu(words) => {
            let ran = shell.run(command, "");
            // A machine with a GPU does it; any other one says what it lacks.
            if ran.code != Some(0) {
                println!("skipped: the README's commands on a GPU: this machine has none");
                assert_eq!(ran.code, Some(1), "{command}: {}", ran.stderr);
                contains(command, &ran.stderr, words);
            }
        }
        Way::Refuses(words) => {
            let ran = shell.run(command, "");
            assert_eq!(ran.code, Some(1), "{command}: {}", ran.stdout);
            contains(command, &ran.stderr, words);
        }
        Way::InCi => {
            let run_there = [".ci/run", "xtask/src/checks.rs"];
            let runs = run_there.iter().any(|place| file(place).contains(command));
            assert!(runs, "neither of {run_there:?} runs: {command}");
        }
    }
}

#[track_caller]
fn goes_well(shell: &Shell, command: &str, typed: &str, words: &[&str]) {
    let ran = shell.run(command, typed);
    assert_eq!(ran.code, Some(0), "{command}: {}{}", ran.stdout, ran.stderr);
    contains(command, &ran.stdout, words);
}

#[track_caller]
fn contains(command: &str, text: &str, words: &[&str]) {
    for word in words {
        assert!(
            text.contains(word),
            "`{command}` does not say {word:?}:\n{text}"
        );
    }
}

/// What stands between backticks is a command with options that it has.
#[test]
fn every_command_that_is_mentioned_exists() {
    let shell = Shell::new();
    let mentioned = page::mentioned(&file("README.md"));
    assert!(mentioned.len() > 3, "{mentioned:?}");
    for command in mentioned {
        let name = command.split(' ').nth(1).unwrap();
        let help = shell.run(&format!("concord {name} --help"), "");
        assert_eq!(help.code, Some(0), "`{command}`: {}", help.stderr);
        let flags = command.split(' ').filter(|word| word.starts_with("--"));
        for flag in flags {
            assert!(
                help.stdout.contains(flag),
                "`{command}`: there is no {flag}"
            );
        }
    }
}

/// The page shows what `concord demo` prints: the same lines in the same order, some left out.
/// Times differ, and so does which piece of work is drawn and by whom it is re-run; the hash does
/// not.
#[test]
fn the_page_shows_what_the_demo_prints() {
    let ran = Shell::new().run("concord demo", "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    let blocks = page::blocks(&file("README.md"));
    let shown = blocks
        .iter()
        .find(|block| {
            block
                .lines
                .iter()
                .any(|line| line.contains("one job, three pools"))
        })
        .expect("README.md shows the demo");
    let mut printed = ran.stdout.lines();
    let mut count = 0;
    for line in shown.lines.iter().filter(|line| !line.is_empty()) {
        let expected = without_chance(line);
        assert!(
            printed.any(|line| without_chance(line) == expected),
            "README.md shows {line:?} where the demo prints\n{}",
            ran.stdout
        );
        count += 1;
    }
    assert!(count > 8, "{count} lines of the demo");
}

/// A line of the demo, with what differs from one run to the next left out.
fn without_chance(line: &str) -> String {
    if let Some((_, piece)) = line.split_once(" re-run the ") {
        let kind = piece.split(' ').next().unwrap_or_default();
        let is_known = ["forward", "backward", "update"].contains(&kind);
        return format!("re-run {is_known}");
    }
    let is_drawn = |word: &str| {
        let word = word.trim_end_matches(',');
        let is_digest = word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
        is_digest || word.parse::<f64>().is_ok() && (line.contains(" s ") || line.ends_with(" s"))
    };
    let words = line.split_whitespace();
    let words = words.map(|word| if is_drawn(word) { "#" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn how_long_the_demo_takes_is_said_once() {
    let help = Shell::new().run("concord --help", "");
    assert!(
        help.stdout.contains("in a minute or two"),
        "{}",
        help.stdout
    );
    let page = file("README.md");
    let page: Vec<&str> = page.split_whitespace().collect();
    assert!(page.join(" ").contains("the demo a minute or two"));
}
