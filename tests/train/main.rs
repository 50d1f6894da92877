//! `concord train` as scripts and people use it: where results go, what an interruption leaves, and
//! what is told meanwhile.

mod cancelled;
mod checkpoints;
mod full_disk;
mod interrupted;
mod jobs;
mod local_pool;
mod metrics;
mod output_dir;
mod resubmitted;
mod running;
#[path = "../cli/tiny_model.rs"]
#[allow(dead_code)]
mod tiny_model;
mod told;
