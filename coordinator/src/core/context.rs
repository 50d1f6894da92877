//! What the parts of the core share while one event is handled: settings, members, the outbox.

use concord_proto::address::Address;
use concord_proto::ledger::Offence;
use concord_proto::session::ToWorker;
use concord_proto::{Digest, Domain, JobId, Keypair, WorkerId};

use super::config::Config;
use super::event::CoreEffect;
use super::members::Members;
use super::outbox::Outbox;
use super::persisted::Change;
use super::time::Time;

pub(super) struct EventContext<'a> {
    pub(super) now: Time,
    pub(super) config: &'a Config,
    pub(super) key: &'a Keypair,
    pub(super) secret: &'a [u8; 32],
    pub(super) members: &'a mut Members,
    pub(super) out: &'a mut Outbox,
}

impl EventContext<'_> {
    /// Sends to a member, if it is connected.
    pub(super) fn send(&mut self, to: &WorkerId, message: ToWorker) {
        if let Some(session) = self.members.session(to) {
            self.out.tell(CoreEffect::Send { session, message });
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

    /// The device name that a member gave; empty if the member is not known.
    pub(super) fn device_name(&self, id: &WorkerId) -> String {
        let member = self.members.get(id);
        member.map_or(String::new(), |member| member.device.name.clone())
    }

    /// The address that a member gave, for people; empty if the member is not known.
    pub(super) fn place(&self, id: &WorkerId) -> String {
        let member = self.members.get(id);
        member.map_or(String::new(), |member| member.endpoint.clone())
    }

    /// Where a member is reached, with its key; empty if the member is not known.
    pub(super) fn endpoint(&self, id: &WorkerId) -> String {
        let member = self.members.get(id);
        let endpoint = member.and_then(|member| Address::for_others(&member.endpoint).ok());
        endpoint.map_or(String::new(), |endpoint| endpoint.of(*id).to_string())
    }

    /// Notes a passed audit of a worker.
    pub(super) fn note_passed(&mut self, id: &WorkerId) {
        if let Some(member) = self.members.get_mut(id) {
            member.passed += 1;
            let change = member.persisted();
            self.out.persist(change);
        }
    }

    /// Bans a key and ends its session. False if it was banned before.
    pub(super) fn expel(&mut self, culprit: WorkerId, offence: Offence, evidence: &str) -> bool {
        if self.members.is_convicted(&culprit).is_some() {
            return false;
        }
        self.members.convict(culprit, offence);
        self.out.persist(Change::Convicted { culprit, offence });
        if let Some(session) = self.members.session(&culprit) {
            let reason = format!("convicted of {}: {evidence}", offence.as_str());
            self.send(&culprit, ToWorker::Refused { reason });
            self.out.tell(CoreEffect::Close { session });
            self.members.leave(self.now, session);
        }
        true
    }
}
