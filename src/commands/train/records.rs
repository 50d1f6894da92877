//! What is written of a job while it is watched: its log, its checkpoints, TensorBoard's events.

use std::path::{Path, PathBuf};

use concord_proto::JobId;
use concord_proto::client::JobEvent;

use super::checkpoints::Saver;
use super::output_dir::log::{StepLog, now};
use crate::support::event_file::EventFile;
use crate::support::output::in_words;
use crate::support::result_names::EVENTS;

/// All that takes in the events of a job.
pub struct Records<'a> {
    /// Its steps.
    pub log: StepLog,
    /// Its checkpoints.
    pub saver: Saver<'a>,
    /// Its event file, if one is asked for.
    pub board: Option<Board>,
}

impl Records<'_> {
    /// Takes in an event. Returns whether it is new, and not repeated from an earlier run.
    pub async fn take(&mut self, event: &JobEvent) -> bool {
        let is_news = self.log.take(event);
        if let Some(board) = &mut self.board {
            board.take(event, is_news);
        }
        self.saver.take(event, is_news, &self.log).await;
        is_news
    }
}

/// The event file of a job. A write that fails is reported once, and the training goes on.
pub struct Board {
    path: PathBuf,
    file: Option<EventFile>,
}

impl Board {
    /// Where the event file of a job in `dir` lies.
    pub fn place(dir: &Path, job: JobId) -> PathBuf {
        // One name for a job, so that it goes on in the same file. Names of event files have a time
        // in this place, by which they are sorted.
        dir.join(format!("{EVENTS}0.{}", job.0.short()))
    }

    /// The event file at `path`, which goes on unless `is_new`.
    pub fn open(path: PathBuf, is_new: bool) -> Self {
        let mut board = Self { path, file: None };
        match EventFile::open(&board.path, is_new) {
            Ok(file) => board.file = Some(file),
            Err(why) => board.complain(&why),
        }
        board
    }

    fn take(&mut self, event: &JobEvent, is_news: bool) {
        let Some(file) = &mut self.file else {
            return;
        };
        let done = match event {
            JobEvent::Step {
                step,
                loss,
                grad_norm,
                learning_rate,
                tokens,
                micros,
                ..
            } => {
                let seconds = (*micros as f64 / 1e6).max(1e-6);
                // The names that transformers gives them.
                let values = [
                    ("train/loss", f64::from(loss.get())),
                    ("train/grad_norm", f64::from(grad_norm.get())),
                    ("train/learning_rate", f64::from(learning_rate.get())),
                    ("train/tokens_per_second", *tokens as f64 / seconds),
                ];
                file.scalars(now(), u64::from(*step) + 1, &values)
            }
            JobEvent::Evaluated { step, loss, .. } if is_news => file.more(
                now(),
                u64::from(*step),
                &[("eval/loss", f64::from(loss.get()))],
            ),
            JobEvent::Voided { from_step } if is_news => {
                file.forget_after(now(), u64::from(*from_step))
            }
            _ => Ok(()),
        };
        if let Err(why) = done {
            self.complain(&why);
        }
    }

    fn complain(&mut self, why: &anyhow::Error) {
        self.file = None;
        let place = self.path.display();
        eprintln!(
            "cannot write {place}: {}; the training goes on without",
            in_words(why)
        );
    }
}
