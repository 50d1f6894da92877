//! Auditors that a job names: they commit to secrets before the work, open the one of each attempt
//! once its claims are in the ledger, and re-run what it draws. The coordinator can foresee and
//! choose none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use concord_proto::auditor::{
    self, CHAIN_MAX, Enrolment, RATE_MAX, Reveal, enrolment_digest, leads_to, reveal_digest,
};
use concord_proto::client::NamedAuditor;
use concord_proto::ledger::{LedgerEvent, entry_digest};
use concord_proto::session::{EnrolOrder, Role, ToWorker};
use concord_proto::{Digest, JobId, Signed, WorkerId};
use concord_verify::training::bundle::StepClaims;

use super::audits::{AuditedLeaves, LeafAudits, halves};
use super::journal::Journal;
use super::planned_step::PlannedStep;
use super::secret_draw::{PendingAttempt, SecretDraw};
use super::{EventContext, PersistedAuditor, SessionId, Time, UnopenedAttempt};

/// An auditor that does not open a secret for this long is not waited for: the attempt is unsettled
/// for it.
const REVEAL_US: u64 = 10_000_000;

/// An auditor that does not enrol is asked again after this long, twice as long each time.
const ASK_AGAIN_US: u64 = 1_000_000;
const ASK_AGAIN_MAX_US: u64 = 60_000_000;

/// An auditor that has missed so many attempts in a row is asked to open nothing for a while.
const MISSES_MAX: u32 = 3;

/// A job does not wait longer for an auditor to enrol: others wait behind it.
const ENROL_US: u64 = 120_000_000;

/// Attempts whose secrets may still come.
const ENTRIES_MAX: usize = 4_096;

/// The furthest that an enrolment may lie ahead.
const AHEAD_MAX: u32 = 1 << 12;

/// The auditors of a job, and what they have yet to open.
#[derive(Default)]
pub(super) struct Auditors {
    enrolled: BTreeMap<WorkerId, EnrolledAuditor>,
    asked: BTreeMap<WorkerId, Asked>,
    /// Committed attempts, by number, whose secrets are awaited.
    pending: BTreeMap<u32, PendingAttempt>,
    /// The entries that committed the last attempts: a secret may come late.
    entries: BTreeMap<u32, Digest>,
    /// The last reveal of each auditor that the ledger has.
    revealed: BTreeMap<WorkerId, Digest>,
    /// How many attempts in a row each auditor has missed.
    misses: BTreeMap<WorkerId, u32>,
    /// Since when the first step waits for auditors.
    waits_since: Option<Time>,
    /// Since when fewer checkers are there than the job asks for.
    short_since: Option<Time>,
}

/// Why the first step does not start.
pub(super) enum Missing {
    /// It waits for this auditor.
    Waits(WorkerId),
    /// This one has not come in time.
    Late(WorkerId),
}

/// An auditor that stands in the ledger.
struct EnrolledAuditor {
    enrolment: Enrolment,
    digest: Digest,
    /// The last secret that it has opened, by its index in the chain.
    opened: Option<(u32, Digest)>,
    /// The session in which it has shown that it has its secrets.
    session: Option<SessionId>,
}

/// When an auditor was asked to enrol.
#[derive(Clone, Copy)]
struct Asked {
    session: SessionId,
    at: Time,
    /// How far ahead the enrolment was to be: attempts go on meanwhile.
    ahead: u32,
    /// When it is asked again.
    pause: u64,
    /// How many answers are outstanding.
    unanswered: u32,
}

impl EnrolledAuditor {
    /// Whether it has secrets for an attempt, or for later ones.
    fn lasts_beyond(&self, attempt: u32) -> bool {
        let end = self.enrolment.from.saturating_add(self.enrolment.length);
        attempt < end
    }
}

/// The session of a key that has one as an auditor or a checker.
fn session_of(context: &EventContext, auditor: &WorkerId) -> Option<SessionId> {
    let member = context.members.get(auditor);
    let member = member.filter(|member| member.role != Role::Worker)?;
    member.session
}

impl Auditors {
    pub(super) fn restore(
        persisted: BTreeMap<WorkerId, PersistedAuditor>,
        committed: BTreeMap<u32, Digest>,
        (unopened, claims): (BTreeMap<u32, UnopenedAttempt>, &[StepClaims]),
        audits: &LeafAudits,
    ) -> Self {
        let revealed = persisted.iter();
        let revealed = revealed.filter_map(|(id, said)| Some((*id, said.last?)));
        let revealed = revealed.collect();
        let enrolled = persisted.into_iter().filter_map(|(auditor, persisted)| {
            let enrolment: Enrolment = persisted.enrolment.open().ok()?;
            let opened = persisted
                .opened
                .and_then(|(attempt, secret)| Some((enrolment.index(attempt)?, secret)));
            let enrolled = EnrolledAuditor {
                digest: enrolment_digest(&persisted.enrolment),
                enrolment,
                opened,
                session: None,
            };
            Some((auditor, enrolled))
        });
        let enrolled: BTreeMap<WorkerId, EnrolledAuditor> = enrolled.collect();
        let awaits = |attempt: u32, held: &EnrolledAuditor| {
            let opened = held.opened.map(|(index, _)| index);
            held.enrolment
                .index(attempt)
                .is_some_and(|index| opened < Some(index))
        };
        let restored = unopened.into_iter().filter_map(|(attempt, unopened)| {
            let claims = claims.iter().find(|claims| claims.step == unopened.step)?;
            let awaited = enrolled.iter().filter(|(_, held)| awaits(attempt, held));
            let awaited: BTreeSet<WorkerId> = awaited.map(|(id, _)| *id).collect();
            let pending = PendingAttempt {
                at: PlannedStep {
                    step: unopened.step,
                    epoch: unopened.epoch,
                },
                claims: Arc::new(claims.clone()),
                signed: halves(claims),
                audited: audits.leaves_of(attempt),
                entry: entry_digest(&unopened.committed),
                committed: unopened.committed,
                awaited,
                since: Time::default(),
            };
            (!pending.awaited.is_empty()).then_some((attempt, pending))
        });
        let pending = restored.collect();
        let old = committed.len().saturating_sub(ENTRIES_MAX);
        Self {
            enrolled,
            pending,
            revealed,
            entries: committed.into_iter().skip(old).collect(),
            ..Self::default()
        }
    }

    /// Whether an auditor has committed to secrets; none where it has not opened them of late.
    pub(super) fn serves(&self, auditor: &WorkerId) -> Option<bool> {
        let misses = self.misses.get(auditor).copied().unwrap_or(0);
        (misses < MISSES_MAX).then(|| self.enrolled.contains_key(auditor))
    }

    /// Whether an auditor is there and has shown that it has its secrets.
    pub(super) fn is_here(&self, context: &EventContext, auditor: &WorkerId) -> bool {
        let held = self.enrolled.get(auditor);
        let session = session_of(context, auditor);
        let has_shown = held.is_some_and(|held| session.is_some() && held.session == session);
        has_shown && self.serves(auditor).is_some()
    }

    /// Whether the next step waits where checkers are missing: for so long, and once.
    pub(super) fn waits_on(&mut self, now: Time, is_short: bool, grace: u64) -> bool {
        if !is_short {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert(now);
        now.since(since) < grace
    }

    /// Whether no secret is awaited.
    pub(super) fn are_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// The first step of which a secret is awaited.
    pub(super) fn oldest_step(&self) -> Option<u32> {
        self.pending.values().map(|pending| pending.at.step).min()
    }

    /// The first of the named auditors that has never enrolled.
    pub(super) fn missing(&mut self, now: Time, named: &[NamedAuditor]) -> Option<Missing> {
        let mut keys = named.iter().map(|named| named.key);
        let missing = keys.find(|key| !self.enrolled.contains_key(key))?;
        let since = *self.waits_since.get_or_insert(now);
        Some(match now.since(since) < ENROL_US {
            true => Missing::Waits(missing),
            false => Missing::Late(missing),
        })
    }

    /// Has named auditors that are there commit to secrets for the attempts from `next` on, of a
    /// job of so many steps.
    pub(super) fn ask_to_enrol(
        &mut self,
        context: &mut EventContext,
        job: JobId,
        named: &[NamedAuditor],
        (next, steps): (u32, u32),
    ) {
        for NamedAuditor { key, rate } in named {
            let Some(session) = session_of(context, key) else {
                continue;
            };
            let held = self.enrolled.get(key);
            let lasts = held.filter(|held| held.lasts_beyond(next) && held.enrolment.rate == *rate);
            if lasts.is_some_and(|held| held.session == Some(session)) {
                continue;
            }
            let asked = self.asked.get(key).filter(|asked| asked.session == session);
            if asked.is_some_and(|asked| context.now.since(asked.at) < asked.pause) {
                continue;
            }
            let ahead = match asked {
                // Before the first attempt nothing goes on meanwhile.
                _ if next == 0 => 0,
                None => 1,
                Some(asked) => (2 * asked.ahead.max(1)).min(AHEAD_MAX),
            };
            let is_slow = self
                .misses
                .get(key)
                .is_some_and(|misses| *misses >= MISSES_MAX);
            let pause = match asked {
                _ if is_slow => ASK_AGAIN_MAX_US,
                None => ASK_AGAIN_US,
                Some(asked) => (2 * asked.pause).min(ASK_AGAIN_MAX_US),
            };
            let (known, last) = (
                lasts.map(|held| held.digest),
                self.revealed.get(key).copied(),
            );
            let asked = Asked {
                session,
                at: context.now,
                ahead,
                pause,
                unanswered: asked.map_or(0, |asked| asked.unanswered) + 1,
            };
            self.asked.insert(*key, asked);
            let enrol = ToWorker::Enrol(EnrolOrder {
                job,
                from: next + ahead,
                length: steps
                    .saturating_mul(2)
                    .saturating_add(AHEAD_MAX)
                    .min(CHAIN_MAX),
                rate: *rate,
                known,
                last,
            });
            context.send(key, enrol);
        }
    }

    /// An auditor commits to secrets, or shows that it still has those that it has committed to.
    pub(super) fn on_enrolled(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        named: &[NamedAuditor],
        (auditor, job): (WorkerId, JobId),
        signed: Signed,
    ) {
        let named = named.iter().find(|named| named.key == auditor);
        let session = session_of(context, &auditor);
        let asked = self.asked.get_mut(&auditor);
        let asked = asked.filter(|asked| asked.unanswered > 0 && Some(asked.session) == session);
        let (Some(named), Some(session), Some(asked)) = (named, session, asked) else {
            return;
        };
        asked.unanswered -= 1;
        let digest = enrolment_digest(&signed);
        if let Some(held) = self
            .enrolled
            .get_mut(&auditor)
            .filter(|held| held.digest == digest)
        {
            held.session = Some(session);
            return self.ask_for_secrets(context, auditor, job);
        }
        let Ok(enrolment) = signed.open::<Enrolment>() else {
            return;
        };
        let next = journal.next_attempt();
        let fits = signed.signer == auditor
            && enrolment.job == job
            && enrolment.coordinator == context.key.public()
            && enrolment.rate == named.rate
            && enrolment.rate <= RATE_MAX
            && (next..=next.saturating_add(AHEAD_MAX)).contains(&enrolment.from)
            && (1..=CHAIN_MAX).contains(&enrolment.length);
        if !fits {
            // Attempts have gone on meanwhile, or it answers something else: it is asked again.
            return;
        }
        journal.enrol(context, &auditor, true);
        journal.write(context, LedgerEvent::Auditing { enrolment: signed });
        // What it has not opened with its old secrets it cannot open with the new ones.
        self.give_up_on(auditor);
        let enrolled = EnrolledAuditor {
            enrolment,
            digest,
            opened: None,
            session: Some(session),
        };
        self.enrolled.insert(auditor, enrolled);
    }

    fn ask_for_secrets(&self, context: &mut EventContext, auditor: WorkerId, job: JobId) {
        let awaited = self.pending.values();
        for pending in awaited.filter(|pending| pending.awaited.contains(&auditor)) {
            let committed = pending.committed.clone();
            context.send(&auditor, ToWorker::Reveal { job, committed });
        }
    }

    fn give_up_on(&mut self, auditor: WorkerId) {
        for pending in self.pending.values_mut() {
            pending.awaited.remove(&auditor);
        }
    }

    /// An attempt is committed: has auditors open their secrets of it. Says whether one has.
    pub(super) fn committed(
        &mut self,
        context: &mut EventContext,
        (job, attempt): (JobId, u32),
        at: PlannedStep,
        (committed, entry): (Signed, Digest),
        claims: &StepClaims,
    ) -> bool {
        self.entries.insert(attempt, entry);
        if self.entries.len() > ENTRIES_MAX {
            self.entries.pop_first();
        }
        let has_secret = |(auditor, held): (&WorkerId, &EnrolledAuditor)| {
            let session = session_of(context, auditor);
            let is_there = session.is_some() && held.session == session;
            (is_there && held.enrolment.index(attempt).is_some()).then_some(*auditor)
        };
        let awaited: BTreeSet<WorkerId> = self.enrolled.iter().filter_map(has_secret).collect();
        if awaited.is_empty() {
            return false;
        }
        for auditor in &awaited {
            let committed = committed.clone();
            context.send(auditor, ToWorker::Reveal { job, committed });
        }
        let pending = PendingAttempt {
            at,
            claims: Arc::new(claims.clone()),
            signed: halves(claims),
            audited: AuditedLeaves::new(),
            committed,
            entry,
            awaited,
            since: context.now,
        };
        self.pending.insert(attempt, pending);
        true
    }

    /// An auditor opens a secret: what it draws, of this attempt and of those before it whose
    /// secrets it opens, too.
    pub(super) fn on_revealed(
        &mut self,
        context: &mut EventContext,
        journal: &mut Journal,
        (auditor, job): (WorkerId, JobId),
        signed: Signed,
    ) -> Vec<SecretDraw> {
        let is_here = session_of(context, &auditor).is_some();
        let held = self.enrolled.get_mut(&auditor).filter(|_| is_here);
        let (Some(held), Ok(reveal)) = (held, signed.open::<Reveal>()) else {
            return Vec::new();
        };
        if self.revealed.get(&auditor) == Some(&reveal_digest(&signed)) {
            // It was sent again, and has arrived twice.
            return Vec::new();
        }
        let is_due = self.entries.get(&reveal.attempt) == Some(&reveal.entry);
        let index = held.enrolment.index(reveal.attempt);
        let (Some(index), true) = (index, is_due) else {
            return Vec::new();
        };
        let (known, digest) = match held.opened {
            Some((known, secret)) => (Some(known), secret),
            None => (None, held.enrolment.top),
        };
        let fits = signed.signer == auditor
            && (reveal.job, reveal.enrolment) == (job, held.digest)
            && self.revealed.get(&auditor) == reveal.previous.as_ref()
            && leads_to(&reveal.secret, index, known, &digest);
        if !fits {
            let who = auditor.short();
            tracing::warn!("auditor {who} opens a secret that does not follow its last one");
            // It may have to commit anew, or to send again what was lost.
            held.session = None;
            self.give_up_on(auditor);
            return Vec::new();
        }
        held.opened = Some((index, reveal.secret));
        self.revealed.insert(auditor, reveal_digest(&signed));
        self.misses.remove(&auditor);
        let rate = held.enrolment.rate;
        journal.write(context, LedgerEvent::Revealed { reveal: signed });
        let mut draws = Vec::new();
        let (mut secret, mut of) = (reveal.secret, reveal.attempt);
        let opened = self.pending.range_mut(..=reveal.attempt).rev();
        for (&attempt, pending) in opened {
            (0..of - attempt).for_each(|_| secret = auditor::before(&secret));
            of = attempt;
            if pending.awaited.remove(&auditor) {
                draws.push(SecretDraw {
                    auditor,
                    attempt,
                    secret,
                    entry: pending.entry,
                    rate,
                });
            }
        }
        draws
    }

    pub(super) fn pending_mut(&mut self, attempt: u32) -> Option<&mut PendingAttempt> {
        self.pending.get_mut(&attempt)
    }

    /// Attempts of which no secret is awaited any more: whoever has not opened one by now is not
    /// waited for.
    pub(super) fn take_settled(&mut self, context: &mut EventContext) -> Vec<PendingAttempt> {
        let now = context.now;
        let is_over = |_: &u32, p: &mut PendingAttempt| {
            p.awaited.is_empty() || now.since(p.since) >= REVEAL_US
        };
        let over = self.pending.extract_if(.., is_over);
        let over: Vec<PendingAttempt> = over.map(|(_, pending)| pending).collect();
        for auditor in over.iter().flat_map(|pending| &pending.awaited) {
            let misses = self.misses.entry(*auditor).or_default();
            *misses += 1;
            if *misses < MISSES_MAX {
                continue;
            }
            // No job chooses it for a while, and this one asks after a pause whether it is there.
            context.members.note_silent(now, auditor);
            if let Some(held) = self.enrolled.get_mut(auditor) {
                held.session = None;
            }
        }
        over
    }

    /// The job ends: auditors forget their secrets of it, and are asked anew if it is taken up
    /// again.
    pub(super) fn end(&mut self) {
        self.pending.clear();
        self.asked.clear();
        self.misses.clear();
        self.waits_since = None;
        self.short_since = None;
        let held = self.enrolled.values_mut();
        held.for_each(|held| held.session = None);
    }

    /// Steps from `step` on are void: their secrets are no longer asked for.
    pub(super) fn void(&mut self, step: u32) {
        self.pending.retain(|_, pending| pending.at.step < step);
    }
}
