//! How a stage that serves is connected: passes from stage to stage, and the stage stream between
//! it and the coordinator.

mod frame;
mod handle;
mod sender;
mod stage_stream;

pub(crate) use handle::{CurrentBinding, StageHandle};
pub(crate) use sender::{OUTGOING_MAX, PassSender, reach};
pub(crate) use stage_stream::{MESSAGES_MAX, StageStream, StageStreamEnd};
