//! What the files of the core work with while they handle one event.

use concord_proto::session::ToWorker;
use concord_proto::{Digest, Domain, JobId, Keypair, WorkerId};

use super::config::Config;
use super::event::{Effect, Time};
use super::outbox::Outbox;
use super::pool::Pool;

pub(super) struct Desk<'a> {
    pub(super) now: Time,
    pub(super) config: &'a Config,
    pub(super) key: &'a Keypair,
    pub(super) secret: &'a [u8; 32],
    pub(super) pool: &'a mut Pool,
    pub(super) out: &'a mut Outbox,
}

impl Desk<'_> {
    /// Sends to a member that is connected; to others nothing is sent.
    pub(super) fn send(&mut self, to: &WorkerId, message: ToWorker) {
        if let Some(session) = self.pool.session(to) {
            self.out.tell(Effect::Send { session, message });
        }
    }

    /// A secret that only this coordinator can derive, for a purpose within a job.
    pub(super) fn secret(&self, job: &JobId, purpose: &str, numbers: [u64; 2]) -> [u8; 32] {
        let input = (*self.secret, *job, purpose.to_string(), numbers);
        Digest::of_value(Domain::Nonce, &input).0
    }

    /// A number that nobody else can foresee, for a purpose within a job.
    pub(super) fn lot(&self, job: &JobId, purpose: &str, numbers: [u64; 2]) -> u32 {
        let [a, b, c, d, ..] = self.secret(job, purpose, numbers);
        u32::from_le_bytes([a, b, c, d])
    }
}
