//! Members come and go, and so does the coordinator.

use super::*;

impl World {
    pub(super) fn connect(&mut self, id: WorkerId) {
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        if process.session.is_some() {
            return;
        }
        if self.core.is_none() {
            let again = self.now + 200 * MS;
            return self.at(again, Item::Connect(id));
        }
        let (role, held) = match &process.body {
            Body::Worker(worker) => (Role::Worker, worker.held()),
            Body::Checker(..) => (Role::Checker, None),
            Body::Auditor(_) => (Role::Auditor, None),
        };
        self.next += 1;
        let session = SessionId(self.next);
        process.session = Some(session);
        let hello = Hello {
            role,
            protocol: PROTOCOL_VERSION,
            arithmetic: ARITHMETIC_VERSION,
            device: DeviceInfo {
                name: "make-believe".to_string(),
                macs_per_second: process.speed,
                memory_bytes: 1 << 40,
            },
            endpoint: format!("concord://w{}", id.short()),
            held,
            challenge: [0; 32],
        };
        let event = CoreEvent::Opened {
            session,
            worker: id,
            hello,
        };
        self.deliver(session, true, Item::ToCore(session, event));
    }

    pub(super) fn hang_up(&mut self, id: WorkerId, session: SessionId) {
        let again = self.now + 50 * MS + self.rng.below(500 * MS);
        let Some(process) = self.processes.get_mut(&id) else {
            return;
        };
        if process.session == Some(session) {
            process.session = None;
            if let Body::Worker(worker) = &mut process.body {
                worker.disconnected();
            }
            self.at(again, Item::Connect(id));
        }
    }

    pub(super) fn die(&mut self, id: WorkerId) {
        let Some(process) = self.processes.remove(&id) else {
            return;
        };
        // Noticed by the end of the connection, or only by the heartbeats that do not come.
        if let Some(session) = process.session
            && !self.rng.chance(3)
        {
            let reason = "its connection broke".to_string();
            let event = CoreEvent::Closed { session, reason };
            self.deliver(session, true, Item::ToCore(session, event));
        }
    }

    pub fn die_coordinator(&mut self) {
        if self.core.take().is_none() {
            return;
        }
        self.crashes += 1;
        self.crash_after = None;
        if let Some(id) = self.kill_at_crash.take() {
            self.processes.remove(&id);
        }
        self.queue.retain(|_, item| !item.is_of_coordinator());
        let ids: Vec<_> = self
            .processes
            .iter()
            .map(|(id, p)| (*id, p.session))
            .collect();
        for (id, session) in ids {
            if let Some(session) = session {
                // What is on its way still arrives, up to a point.
                let end = self.now + self.rng.below(30 * MS);
                self.at(end, Item::Hangup(id, session));
            }
        }
        let back = self.now + 40 * MS + self.rng.below(2 * SECOND);
        self.at(back, Item::Boot);
    }
}
