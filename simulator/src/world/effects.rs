//! What the core orders is carried out.

use super::*;

impl World {
    /// The answer to a client.
    pub fn ask(&mut self, question: Question) -> Option<ClientResponse> {
        self.apply(asked(1, question));
        self.answers.pop()
    }

    pub(super) fn of_session(&self, session: SessionId) -> Option<WorkerId> {
        let mut all = self.processes.iter();
        all.find_map(|(id, p)| (p.session == Some(session)).then_some(*id))
    }

    pub(super) fn carry_out(&mut self, effect: CoreEffect) {
        match effect {
            CoreEffect::StoreBlob(bytes) => {
                let address = Digest::of(concord_proto::Domain::Blob, &bytes);
                if let Ok(spec) = canonical::decode::<JobSpec>(&bytes) {
                    self.library.specs.insert(address, spec);
                } else {
                    let state: StateManifest = canonical::decode(&bytes).expect("a manifest");
                    self.library.states.insert(address, state);
                }
            }
            CoreEffect::Persist(changes) => self.persist(changes),
            CoreEffect::Send { session, message } => {
                if let ToWorker::Assign(assignment) = &message {
                    let state = &self.library.states[&assignment.state];
                    let is_there = |blob: &Digest| self.blobs.contains(blob);
                    assert!(blobs_of(state).iter().all(is_there), "its state is gone");
                }
                self.watch_told(&message);
                if let Some(id) = self.of_session(session) {
                    self.deliver(session, false, Item::ToProcess(id, session, message));
                }
            }
            CoreEffect::Close { session } => {
                if let Some(id) = self.of_session(session) {
                    self.deliver(session, false, Item::Hangup(id, session));
                }
            }
            CoreEffect::Publish { number, .. } => {
                assert!(
                    number < self.memory.events.len() as u64,
                    "told before it was persisted"
                );
            }
            CoreEffect::Reply { response, .. } => self.answers.push(response),
            CoreEffect::Serving(_) => {}
            CoreEffect::Probe { session, .. } => {
                let worker = self.of_session(session);
                let is_shown = self.links.shown_from.is_some_and(|from| self.now >= from);
                let is_hidden = |id| self.links.hidden.contains(&id) && !is_shown;
                let is_hidden = worker.is_some_and(is_hidden);
                let failure = is_hidden.then(|| "no answer".to_string());
                let answer = CoreEvent::Probed { session, failure };
                self.at(self.now + MS, Item::ToCore(session, answer));
            }
            CoreEffect::Referee { order, traced } => self.begin_rerun(order, traced),
            CoreEffect::CheckBlobs { check, blobs } => {
                let missing = blobs.into_iter().filter(|b| !self.blobs.contains(b));
                let missing = missing.collect();
                self.soon(Item::Checked(check, missing));
            }
        }
    }

    fn persist(&mut self, changes: Vec<Change>) {
        if let Some(transactions) = &mut self.transactions {
            transactions.push(changes.clone());
        }
        self.swept.follow(&self.new, &changes, &mut self.blobs);
        for change in changes {
            let entry = match &change {
                Change::Ledger { entry, .. } => Some(entry.clone()),
                _ => None,
            };
            if let Change::Step { claims, .. } = &change {
                self.watch_step(claims);
            }
            self.memory.persist(change);
            entry.iter().for_each(|entry| self.watch_entry(entry));
            entry.iter().for_each(|entry| self.check_entry(entry));
        }
    }
}
