//! What is told while a job runs.

use crate::jobs::Home;
use crate::running::run;

#[test]
fn the_loss_is_told_in_lines_where_there_is_no_terminal() {
    let home = Home::new();
    let job = home.job("out", 12, "");
    let ran = run(&["train", &job.file, "--checkers", "0"]).good();
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("loss"))
        .collect();
    let (first, last) = (lines.first().expect("lines"), lines.last().expect("lines"));
    assert!(
        first.starts_with(" 1/12  loss ") && last.starts_with("12/12  loss "),
        "{lines:#?}"
    );
    for word in ["norm", "lr ", "tokens/s", "eta "] {
        assert!(first.contains(word), "no {word:?} in {first}");
    }
    assert!(!ran.stderr.contains("predicted"), "{}", ran.stderr);
    assert!(!ran.stderr.contains('\x1b'), "{}", ran.stderr);
    // What was told of the first step is what the log keeps of it.
    let log = job.log();
    let loss = format!("loss {:.4}", log[0]["loss"].as_f64().unwrap());
    assert!(first.contains(&loss), "no {loss:?} in {first}");
    assert!(ran.stdout.contains("done: 12 steps") && ran.stdout.contains("hash "));
}

#[test]
fn what_was_told_before_an_interruption_is_not_told_again() {
    let home = Home::new();
    let job = home.job("out", 120, "");
    let mut train = job.start(&[]);
    train.until_step(11);
    train.signal("TERM");
    assert_eq!(train.end().code, Some(143));
    let ran = run(&["train", &job.file, "--checkers", "0"]).good();
    let stderr = ran.stderr;
    assert!(stderr.contains("were done before"), "{stderr}");
    assert!(
        !stderr.lines().any(|line| line.starts_with("  1/120 ")),
        "{stderr}"
    );
    assert!(
        stderr
            .lines()
            .any(|line| line.starts_with("120/120  loss ")),
        "{stderr}"
    );
}
