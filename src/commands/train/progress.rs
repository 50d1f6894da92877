//! The progress of a job as text: a bar on a terminal, lines where standard error goes elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use concord_proto::client::JobEvent;
use indicatif::{ProgressBar, ProgressStyle};

use crate::support::job_events::{base_loss, describe, step_line};
use crate::support::output::Output;

/// The shortest time between two printed lines; the first and the last step are always printed.
const LINE_PAUSE: Duration = Duration::from_secs(1);

/// The weight of a new step in the running mean of step times.
const NEWEST_SHARE: f64 = 0.1;

/// The bar and a message, which is cut off at the width of the terminal.
const STYLE: &str = "{bar:20.cyan/blue} {wide_msg}";

/// Where progress is shown.
enum Shown {
    Bar(ProgressBar),
    /// As lines; has the time of the last one.
    Lines(Option<Instant>),
    /// Not here: events are printed as objects elsewhere.
    Nowhere,
}

/// Shows the progress of a job.
pub struct TrainProgress {
    shown: Shown,
    steps: u32,
    /// Mean seconds of a step, once there is one.
    step_seconds: Option<f64>,
    /// How many steps an earlier run of the command has shown.
    earlier: u32,
    /// The loss on held-out sequences before the first step, where there is one.
    base_loss: Option<f32>,
}

impl TrainProgress {
    /// The progress of a job of `steps` steps.
    pub fn new(steps: u32, output: &Output) -> Self {
        let shown = if output.is_json() {
            Shown::Nowhere
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(u64::from(steps));
            bar.set_style(ProgressStyle::with_template(STYLE).expect("the template is right"));
            Shown::Bar(bar)
        } else {
            Shown::Lines(None)
        };
        let progress = Self {
            shown,
            steps,
            step_seconds: None,
            earlier: 0,
            base_loss: None,
        };
        progress.phase("waiting for the pool");
        progress
    }

    /// Shows an event. One that an earlier run has shown only moves the bar.
    pub fn show(&mut self, event: &JobEvent, is_news: bool) {
        if let JobEvent::Step { step, micros, .. } = event {
            self.step(event, *step, *micros, is_news);
            return;
        }
        if let JobEvent::Voided { from_step } = event {
            self.earlier = self.earlier.min(*from_step);
        }
        self.base_loss = base_loss(event).or(self.base_loss);
        if !is_news {
            return;
        }
        match event {
            JobEvent::Planned { .. } => self.phase("loading the model"),
            JobEvent::Waiting(_) => self.phase("waiting"),
            JobEvent::Voided { from_step } => {
                if let Shown::Bar(bar) = &self.shown {
                    bar.set_position(u64::from(*from_step));
                }
            }
            _ => {}
        }
        if let Some(words) = describe(event, self.base_loss) {
            self.say(&words);
        }
    }

    fn step(&mut self, event: &JobEvent, step: u32, micros: u64, is_news: bool) {
        let seconds = micros as f64 / 1e6;
        let mean = self.step_seconds.unwrap_or(seconds);
        self.step_seconds = Some(mean + (seconds - mean) * NEWEST_SHARE);
        if !is_news {
            self.earlier = self.earlier.max(step + 1);
        } else if self.earlier > 0 {
            let words = format!("steps up to {} were done before", self.earlier);
            self.earlier = 0;
            self.say(&words);
        }
        let left = f64::from(self.steps.saturating_sub(step + 1));
        let line = step_line(event, self.steps, Some(left * mean));
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(u64::from(step) + 1);
                let is_last = step + 1 == self.steps;
                bar.set_message(if is_last {
                    "auditing".to_string()
                } else {
                    line
                });
            }
            Shown::Lines(last) => {
                let is_due = last.is_none_or(|last| last.elapsed() >= LINE_PAUSE);
                if is_news && (is_due || step == 0 || step + 1 == self.steps) {
                    *last = Some(Instant::now());
                    eprintln!("{line}");
                }
            }
            Shown::Nowhere => {}
        }
    }

    /// Shows the current phase, on a terminal.
    pub fn phase(&self, words: &str) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(format!("{}/{}  {words}", bar.position(), self.steps));
        }
    }

    /// Leaves the bar on the screen: the job is done.
    pub fn finish(&mut self) {
        if let Shown::Bar(bar) = std::mem::replace(&mut self.shown, Shown::Nowhere) {
            bar.abandon();
        }
    }

    fn say(&self, words: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| eprintln!("{words}")),
            Shown::Lines(_) => eprintln!("{words}"),
            Shown::Nowhere => {}
        }
    }
}

impl Drop for TrainProgress {
    fn drop(&mut self) {
        // Cleared, so that the reason of the end is printed on a line of its own.
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use concord_proto::Digest;
    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    fn step(step: u32, steps_of_us: u64) -> JobEvent {
        JobEvent::Step {
            step,
            loss: 10.123_456.into(),
            grad_norm: 123.456_78.into(),
            learning_rate: 1.25e-4.into(),
            tokens: 1_048_576,
            micros: steps_of_us,
            record: Digest([1; 32]),
        }
    }

    /// Stands for a line that was cleared.
    const CLEARED: &str = "\x1bm";

    /// A terminal that keeps what is written to it.
    #[derive(Clone, Debug)]
    struct Terminal(u16, Arc<Mutex<Vec<String>>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            self.0
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.1.lock().unwrap().push(text.to_string());
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str(CLEARED)
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a terminal shows of a text: no colours.
    fn shown(text: &str) -> usize {
        let mut count = 0;
        let mut within = false;
        for character in text.chars() {
            match (within, character) {
                (_, '\x1b') => within = true,
                (true, 'm') => within = false,
                (true, _) => {}
                (false, _) => count += 1,
            }
        }
        count
    }

    #[test]
    fn the_bar_fits_the_terminal_and_tells_no_end_before_the_first_step() {
        for width in [40, 60, 80, 200] {
            let terminal = Terminal(width, Arc::default());
            let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
            let bar = ProgressBar::with_draw_target(Some(100_000), target);
            bar.set_style(ProgressStyle::with_template(STYLE).unwrap());
            let mut progress = TrainProgress {
                shown: Shown::Bar(bar),
                steps: 100_000,
                step_seconds: None,
                earlier: 0,
                base_loss: None,
            };
            progress.phase("loading the model");
            let before = terminal.1.lock().unwrap().concat();
            assert!(!before.contains("eta"), "{before:?}");
            progress.show(&step(11_000, 2_000_000), true);
            // Its last look is drawn in any case.
            progress.finish();
            let drawn = terminal.1.lock().unwrap().clone();
            assert!(drawn.concat().contains("11001/100000"), "{drawn:?}");
            for text in &drawn {
                assert!(shown(text) <= usize::from(width), "{width}: {text:?}");
            }
        }
    }

    #[test]
    fn void_steps_are_not_told_as_done_before() {
        let mut progress = TrainProgress {
            shown: Shown::Nowhere,
            steps: 30,
            step_seconds: None,
            earlier: 0,
            base_loss: None,
        };
        progress.show(&step(20, 1), false);
        assert_eq!(progress.earlier, 21);
        progress.show(&JobEvent::Voided { from_step: 20 }, true);
        assert_eq!(progress.earlier, 20);
    }

    #[test]
    fn a_job_that_is_interrupted_leaves_no_bar_on_the_line() {
        let terminal = Terminal(80, Arc::default());
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bar = ProgressBar::with_draw_target(Some(10), target);
        let progress = TrainProgress {
            shown: Shown::Bar(bar),
            steps: 10,
            step_seconds: None,
            earlier: 0,
            base_loss: None,
        };
        progress.phase("loading the model");
        drop(progress);
        let drawn = terminal.1.lock().unwrap().clone();
        assert_eq!(drawn.last().map(String::as_str), Some(CLEARED), "{drawn:?}");
    }
}
