//! Who is in the pool.

use super::*;

impl World {
    pub fn join_worker(&mut self, number: u8, at: u64, lie: Option<Lie>) -> WorkerId {
        self.join_fast_worker(number, at, lie, 1_000_000_000)
    }

    pub fn join_fast_worker(
        &mut self,
        number: u8,
        at: u64,
        lie: Option<Lie>,
        speed: u64,
    ) -> WorkerId {
        let worker = Worker::new(key(number), lie);
        self.join(number, at, Body::Worker(Box::new(worker)), speed)
    }

    /// A new process, with the key of that number.
    pub fn join_late(&mut self, number: u8, at: u64, speed: u64) {
        self.at(at, Item::Join(number, speed));
    }

    pub fn join_checker(&mut self, number: u8, at: u64, checker: Checker) -> WorkerId {
        let auditor = Auditor::new(key(number), key(255).public(), Manner::Honest);
        self.join(number, at, Body::Checker(checker, Box::new(auditor)), 1)
    }

    /// A checker of the pool that fails to do its part.
    pub fn join_failing_checker(&mut self, number: u8, at: u64, manner: Manner) -> WorkerId {
        let auditor = Auditor::new(key(number), key(255).public(), manner);
        let body = Body::Checker(Checker::Honest, Box::new(auditor));
        self.join(number, at, body, 1)
    }

    /// An auditor, which the job names with this rate.
    pub fn join_auditor(&mut self, number: u8, at: u64, manner: Manner, rate: u64) -> WorkerId {
        let own = key(number);
        let named = NamedAuditor {
            key: own.public(),
            rate,
        };
        self.new.submission.options.auditors.push(named);
        let auditor = Auditor::new(own, key(255).public(), manner);
        self.join(number, at, Body::Auditor(Box::new(auditor)), 1)
    }

    /// The process of an auditor is lost, and another one with its key and its disk takes its
    /// place.
    pub fn restart_auditor(&mut self, id: WorkerId, at: u64) {
        self.at(at, Item::Restart(id));
    }

    pub(super) fn restart(&mut self, id: WorkerId) {
        let process = self.processes.get_mut(&id);
        match process.map(|process| &mut process.body) {
            Some(Body::Auditor(auditor) | Body::Checker(_, auditor)) => auditor.lose_secrets(),
            Some(Body::Worker(_)) | None => {}
        }
        self.happen(Item::Break(id));
    }

    fn join(&mut self, number: u8, at: u64, body: Body, speed: u64) -> WorkerId {
        let id = key(number).public();
        let session = None;
        let process = Process {
            body,
            session,
            speed,
        };
        self.processes.insert(id, process);
        self.at(at, Item::Connect(id));
        id
    }
}
