//! Who is in the pool: who comes, goes, is reached, and is out for good.

mod address;
mod reach;
mod rivals;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use concord_proto::WorkerId;
use concord_proto::ledger::Offence;
use concord_proto::session::{DeviceInfo, Hello, Role};

use super::event::SessionId;
use super::persisted::{Change, PersistedMember};
use super::time::Time;
use reach::Reach;

pub(super) use rivals::Rivals;

/// After its second failure in a row a worker is left alone for this long, doubled each time.
const FAILURE_PAUSE_US: u64 = 2_000_000;
const FAILURE_PAUSE_MAX_US: u64 = 60_000_000;

/// How long a checker that says nothing is left alone.
const SILENT_US: u64 = 60_000_000;

/// A worker or checker that is or was here.
#[derive(Clone, Debug)]
pub(super) struct PoolMember {
    pub(super) id: WorkerId,
    pub(super) role: Role,
    pub(super) device: DeviceInfo,
    pub(super) endpoint: String,
    /// Present while it is connected.
    pub(super) session: Option<SessionId>,
    pub(super) heard: Time,
    /// When the last session ended.
    pub(super) left: Time,
    pub(super) draining: bool,
    /// Audits passed.
    pub(super) passed: u64,
    /// Failures since it last had part in a committed step.
    pub(super) failures: u32,
    /// Sessions that ended because of bytes that were no message of its key, since then.
    pub(super) garbled: u32,
    pub(super) unfit_until: Time,
    /// Why a plan was last given up because of it.
    pub(super) trouble: String,
    /// Why the coordinator does not reach it at its address, if it has tried in vain.
    pub(super) unreached: Option<String>,
    /// When its session began.
    pub(super) came: Time,
    /// When its address was last tried, and whether any try has been answered.
    pub(super) tried: Time,
    pub(super) is_tried: bool,
    /// When it last proved that it is at its address, and how many tries have failed since.
    pub(super) proven_at: Time,
    pub(super) missed: u32,
    /// Whether another worker gave the same address since it last proved to be there, or, where
    /// it has not, since it was last tried.
    pub(super) is_contested: bool,
    /// Verdicts that were accepted, of a checker.
    pub(super) answered: u64,
}

impl PoolMember {
    pub(super) fn persisted(&self) -> Change {
        Change::Member(PersistedMember {
            id: self.id,
            role: self.role,
            device: self.device.clone(),
            passed: self.passed,
        })
    }
}

/// How long a worker is left alone after a failure, with so many in a row before it.
fn pause_after(failures: u32) -> u64 {
    match failures {
        0 => 0,
        before => (FAILURE_PAUSE_US << (before - 1).min(8)).min(FAILURE_PAUSE_MAX_US),
    }
}

#[derive(Debug, Default)]
pub(super) struct Members {
    members: BTreeMap<WorkerId, PoolMember>,
    sessions: BTreeMap<SessionId, WorkerId>,
    convicted: BTreeMap<WorkerId, Offence>,
    /// Who did not reach whom.
    reach: Reach,
}

impl Members {
    pub(super) fn restore(
        members: Vec<PersistedMember>,
        convicted: Vec<(WorkerId, Offence)>,
    ) -> Self {
        let member = |persisted: PersistedMember| PoolMember {
            id: persisted.id,
            role: persisted.role,
            device: persisted.device,
            endpoint: String::new(),
            session: None,
            heard: Time::default(),
            left: Time::default(),
            draining: false,
            passed: persisted.passed,
            failures: 0,
            garbled: 0,
            unfit_until: Time::default(),
            trouble: String::new(),
            unreached: None,
            came: Time::default(),
            tried: Time::default(),
            is_tried: false,
            proven_at: Time::default(),
            missed: 0,
            is_contested: false,
            answered: 0,
        };
        let members = members.into_iter().map(|found| (found.id, member(found)));
        Self {
            members: members.collect(),
            convicted: convicted.into_iter().collect(),
            sessions: BTreeMap::new(),
            reach: Reach::default(),
        }
    }

    /// Takes a member in. An older session of the same key is returned: it is to be closed.
    pub(super) fn join(
        &mut self,
        now: Time,
        session: SessionId,
        id: WorkerId,
        hello: &Hello,
    ) -> Option<SessionId> {
        let known = self.members.get(&id);
        let (passed, answered) = known.map_or((0, 0), |member| (member.passed, member.answered));
        let earlier = known.and_then(|member| member.session);
        // A new session does not end the pause after bytes that were no message.
        let garbled = known.map_or(0, |member| member.garbled);
        let unfit_until = known
            .filter(|_| garbled > 0)
            .map(|member| member.unfit_until);
        let unfit_until = unfit_until.unwrap_or_default();
        self.members.insert(
            id,
            PoolMember {
                id,
                role: hello.role,
                device: hello.device.clone(),
                endpoint: hello.endpoint.clone(),
                session: Some(session),
                heard: now,
                left: now,
                draining: false,
                passed,
                failures: 0,
                garbled,
                unfit_until,
                trouble: String::new(),
                unreached: None,
                came: now,
                tried: now,
                is_tried: false,
                proven_at: Time::default(),
                missed: 0,
                is_contested: false,
                answered,
            },
        );
        if let Some(earlier) = earlier {
            self.sessions.remove(&earlier);
        }
        self.sessions.insert(session, id);
        earlier
    }

    /// Forgets a session; its member stays known. Gives the member, where the session was live.
    pub(super) fn leave(&mut self, now: Time, session: SessionId) -> Option<WorkerId> {
        let id = self.sessions.remove(&session)?;
        self.reach.forget(&id);
        if let Some(member) = self.members.get_mut(&id) {
            member.session = None;
            member.left = now;
            let endpoint = member.endpoint.clone();
            self.end_contest(&endpoint);
        }
        Some(id)
    }

    pub(super) fn of_session(&self, session: SessionId) -> Option<WorkerId> {
        self.sessions.get(&session).copied()
    }

    pub(super) fn get(&self, id: &WorkerId) -> Option<&PoolMember> {
        self.members.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &WorkerId) -> Option<&mut PoolMember> {
        self.members.get_mut(id)
    }

    pub(super) fn session(&self, id: &WorkerId) -> Option<SessionId> {
        self.get(id).and_then(|member| member.session)
    }

    /// Members that are connected, by rising key.
    pub(super) fn connected(&self) -> impl Iterator<Item = &PoolMember> {
        self.members
            .values()
            .filter(|member| member.session.is_some())
    }

    pub(super) fn checkers(&self) -> impl Iterator<Item = &PoolMember> {
        self.connected()
            .filter(|member| member.role == Role::Checker)
    }

    /// Sets the time when all connected members were last heard of.
    pub(super) fn all_heard(&mut self, now: Time) {
        let connected = self.members.values_mut().filter(|m| m.session.is_some());
        connected.for_each(|member| member.heard = now);
    }

    pub(super) fn is_convicted(&self, id: &WorkerId) -> Option<Offence> {
        self.convicted.get(id).copied()
    }

    pub(super) fn convict(&mut self, id: WorkerId, offence: Offence) {
        self.convicted.entry(id).or_insert(offence);
    }

    pub(super) fn convicted(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.convicted.keys().copied()
    }

    /// Notes that a worker does not reach another one.
    pub(super) fn note_unreached(&mut self, now: Time, from: WorkerId, to: WorkerId) {
        self.reach.note(now, from, to);
    }

    /// Who of `workers` is to be left out, so that all others reach each other.
    pub(super) fn left_out(&self, now: Time, workers: &BTreeSet<WorkerId>) -> BTreeSet<WorkerId> {
        let is_doubtful = |id: &WorkerId| self.get(id).is_some_and(|m| m.unreached.is_some());
        self.reach.left_out(now, workers, is_doubtful)
    }

    /// The connected workers that give this address.
    pub(super) fn at<'a>(&'a self, endpoint: &'a str) -> impl Iterator<Item = &'a PoolMember> {
        let workers = self.connected().filter(|m| m.role == Role::Worker);
        workers.filter(move |member| member.endpoint == endpoint)
    }

    /// Notes that so many verdicts of a checker were accepted.
    pub(super) fn note_answered(&mut self, checker: &WorkerId, count: u64) {
        if let Some(member) = self.members.get_mut(checker) {
            member.answered += count;
        }
    }

    /// Notes a failure that was no offence: from the second in a row on, the worker is left alone
    /// for a while. The first is free: the worker may only have noticed that another one ended.
    /// Gives how many it has had in a row.
    pub(super) fn failed(&mut self, now: Time, id: &WorkerId) -> u32 {
        let Some(member) = self.members.get_mut(id) else {
            return 0;
        };
        member.unfit_until = now.plus(pause_after(member.failures));
        member.failures += 1;
        member.failures
    }

    /// Bytes came on a session that are no message of its member: from the second time in a row on,
    /// it gets no work for a while. Says whether the session is live.
    pub(super) fn note_garbled(&mut self, now: Time, session: SessionId) -> bool {
        let Some(id) = self.of_session(session) else {
            return false;
        };
        if let Some(member) = self.members.get_mut(&id) {
            let pause = now.plus(pause_after(member.garbled));
            member.unfit_until = member.unfit_until.max(pause);
            member.garbled += 1;
        }
        true
    }

    /// A checker has left several orders in a row unanswered: no job chooses it for a while.
    pub(super) fn note_silent(&mut self, now: Time, checker: &WorkerId) {
        self.pause(now, checker, SILENT_US);
    }

    /// Leaves a member alone for a while.
    pub(super) fn pause(&mut self, now: Time, id: &WorkerId, micros: u64) {
        if let Some(member) = self.members.get_mut(id) {
            member.unfit_until = member.unfit_until.max(now.plus(micros));
        }
    }
}
