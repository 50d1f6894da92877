//! Receipts: claims are checked as they come, and what the answer was is signed.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use concord_proto::draw::{nonce_commitment, seed};
use concord_proto::ledger::Offence;
use concord_proto::serving::{
    Deployment, DeploymentId, Finish, Generation, PassHeader, Receipt, ServedModel, StageClaim,
    Usage,
};
use concord_proto::{Digest, Domain, Keypair, Layers, Signed, WorkerId};
use concord_verify::serving::{AnswerRules, EdgeDispute, EdgeFault, first_gap};
use tokio::sync::{mpsc, oneshot};

use super::archive::{self, Filed};
use super::hub::Hub;
use super::pipeline;
use crate::core::ServingEvent;

/// What may wait for the notary: the answers of some seconds.
pub(super) const INPUTS_MAX: usize = 4_096;

/// How long the digest of the text that was sent is waited for.
const TEXT_MAX: Duration = Duration::from_secs(2);

/// How long a stage may take to give out the headers that it received.
const EVIDENCE_MAX: Duration = Duration::from_secs(5);

/// Texts of answers whose claims are not there yet.
const TEXTS_MAX: usize = 8_192;

/// What the notary is told.
pub(super) enum Input {
    /// An answer is done, and its stages have claimed what they will claim.
    Answered(Box<Answered>),
    /// Whoever asked says what text was sent, or is gone.
    Closed { sequence: u64, text: Option<Digest> },
    /// What a stage received, or nothing where it is gone.
    Evidence {
        sequence: u64,
        headers: Option<Vec<PassHeader>>,
    },
    /// The end, once everything is written.
    Stop(oneshot::Sender<()>),
}

/// An answer with the claims of its stages.
pub(super) struct Answered {
    pub(super) sequence: u64,
    pub(super) pipeline: u32,
    pub(super) epoch: u32,
    pub(super) generation: Generation,
    pub(super) answer: Vec<u32>,
    pub(super) finish: Finish,
    pub(super) usage: Usage,
    /// Tokens of the answer that earlier holders of the last stage drew.
    pub(super) before: u32,
    pub(super) seats: Vec<(WorkerId, Layers)>,
    /// By seat.
    pub(super) claims: Vec<Option<Signed>>,
    pub(super) pages: Vec<u32>,
    /// Whether the pipeline holds the pages until it hears that the claims are checked.
    pub(super) is_held: bool,
}

/// An answer on its way to its receipt.
struct Entry {
    answered: Box<Answered>,
    claims: Vec<Option<StageClaim>>,
    since: Instant,
    /// The receiver of a gap, whose evidence is waited for.
    disputed: Option<usize>,
    /// Whether the answer is audited in any case.
    is_doubtful: bool,
}

pub(super) struct Notary {
    deployment: Deployment,
    id: DeploymentId,
    key: Keypair,
    nonce: [u8; 32],
    audit_rate: u64,
    hub: Weak<Hub>,
    events: mpsc::Sender<ServingEvent>,
    archive: mpsc::Sender<archive::Input>,
    entries: BTreeMap<u64, Entry>,
    texts: BTreeMap<u64, (Option<Digest>, Instant)>,
}

impl Notary {
    pub(super) fn new(
        served: &ServedModel,
        parts: (Keypair, [u8; 32]),
        hub: Weak<Hub>,
        events: mpsc::Sender<ServingEvent>,
        archive: mpsc::Sender<archive::Input>,
    ) -> Self {
        let (key, nonce) = parts;
        let commitment = nonce_commitment(&nonce);
        tracing::info!(%commitment, "audits of answers are drawn with this nonce");
        Self {
            deployment: served.deployment.clone(),
            id: served.deployment.id(),
            key,
            nonce,
            audit_rate: served.audit_rate,
            hub,
            events,
            archive,
            entries: BTreeMap::new(),
            texts: BTreeMap::new(),
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        let mut ticks = tokio::time::interval(TEXT_MAX / 8);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(Input::Answered(answered)) => self.on_answered(answered).await,
                    Some(Input::Closed { sequence, text }) => {
                        self.note_text(sequence, text);
                        self.settle(sequence).await;
                    }
                    Some(Input::Evidence { sequence, headers }) => {
                        self.on_evidence(sequence, headers).await;
                    }
                    Some(Input::Stop(done)) => {
                        self.sign_all().await;
                        let _ = self.archive.send(archive::Input::Stop(done)).await;
                        return;
                    }
                    None => return,
                },
                _ = ticks.tick() => self.on_tick().await,
            }
        }
    }

    /// Keeps a text until its claims are there. Nothing is kept of whoever is gone before that, and
    /// where there are too many, the oldest goes: nobody can keep the texts of others out.
    fn note_text(&mut self, sequence: u64, text: Option<Digest>) {
        if text.is_none() && !self.entries.contains_key(&sequence) {
            return;
        }
        if self.texts.len() >= TEXTS_MAX {
            let oldest = self.texts.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(oldest) = oldest.map(|(sequence, _)| *sequence) {
                self.texts.remove(&oldest);
            }
        }
        self.texts.insert(sequence, (text, Instant::now()));
    }

    async fn on_answered(&mut self, mut answered: Box<Answered>) {
        let spec = &answered.generation.spec;
        let rules = AnswerRules::new(&self.deployment, spec, &answered.answer);
        let (mut claims, mut faults) = (Vec::new(), Vec::new());
        for (seat, signed) in answered.claims.iter().enumerate() {
            let (worker, layers) = answered.seats[seat];
            let check = |signed| rules.check_holder(worker, layers, answered.before, signed);
            claims.push(match signed.as_ref().map(check) {
                Some(Ok(claim)) => Some(claim),
                Some(Err(why)) => {
                    faults.push((seat, why));
                    None
                }
                None => None,
            });
        }
        for (seat, why) in faults {
            answered.claims[seat] = None;
            let name = &answered.generation.id;
            let reason = format!("answer {name}: {why}");
            self.distrust(answered.seats[seat].0, reason).await;
        }
        let opened = claims.iter().enumerate();
        let opened = opened.filter_map(|(seat, claim)| Some((seat, claim.as_ref()?)));
        let disputed = first_gap(opened).map(|(_, receiver)| receiver);
        let sequence = answered.sequence;
        if let Some(seat) = disputed {
            let name = &answered.generation.id;
            tracing::warn!(answer = name, seat, "two stages claim different things");
            let asks = answered.is_held
                && self.tell(
                    answered.pipeline,
                    pipeline::Input::Evidence { sequence, seat },
                );
            if !asks {
                answered.is_held = false;
            }
        }
        let waits = disputed.is_some() && answered.is_held;
        let entry = Entry {
            claims,
            since: Instant::now(),
            disputed: disputed.filter(|_| waits),
            is_doubtful: disputed.is_some(),
            answered,
        };
        if !waits {
            self.release(&entry);
        }
        self.entries.insert(sequence, entry);
        self.settle(sequence).await;
    }

    /// The pages of the sequence may go.
    fn release(&self, entry: &Entry) {
        let sequence = entry.answered.sequence;
        if entry.answered.is_held {
            self.tell(
                entry.answered.pipeline,
                pipeline::Input::Checked { sequence },
            );
        }
    }

    fn tell(&self, index: u32, input: pipeline::Input) -> bool {
        let hub = self.hub.upgrade();
        hub.is_some_and(|hub| hub.try_send_to(index, input).is_ok())
    }

    async fn distrust(&self, worker: WorkerId, reason: String) {
        let event = ServingEvent::Distrusted { worker, reason };
        // A core that is gone plans nothing.
        let _ = self.events.send(event).await;
    }

    async fn on_evidence(&mut self, sequence: u64, headers: Option<Vec<PassHeader>>) {
        let Some(entry) = self.entries.get_mut(&sequence) else {
            return;
        };
        let Some(seat) = entry.disputed.take() else {
            return;
        };
        let answered = &entry.answered;
        let (sender, receiver) = (answered.seats[seat - 1].0, answered.seats[seat].0);
        let claim = entry.claims[seat].as_ref();
        let fault = claim.map_or(EdgeFault::Unclear, |claim| {
            let dispute = EdgeDispute {
                deployment: self.id,
                epoch: answered.epoch,
                sender,
                pages: &answered.pages,
                positions: claim.positions,
                claimed: claim.input,
            };
            dispute.decide(headers.as_deref().unwrap_or_default())
        });
        let name = answered.generation.id.clone();
        self.release(&self.entries[&sequence]);
        let (worker, evidence) = match fault {
            EdgeFault::Sender => (sender, "it signed rows that it does not claim to have sent"),
            EdgeFault::Receiver => (receiver, "it claims other rows than were signed for it"),
            EdgeFault::Unclear => {
                // A receiver that is there has to have what it claims to have received.
                tracing::error!(
                    answer = name,
                    "no evidence tells which of two stages is wrong"
                );
                if headers.is_some() {
                    self.decided(sequence);
                    let reason = format!("answer {name}: it does not show what it received");
                    self.distrust(receiver, reason).await;
                }
                return self.settle(sequence).await;
            }
        };
        self.decided(sequence);
        let guilty = ServingEvent::Guilty {
            worker,
            offence: Offence::Equivocation,
            evidence: format!("answer {name}: {evidence}"),
        };
        let _ = self.events.send(guilty).await;
        self.settle(sequence).await;
    }

    /// It is known who was wrong: no judge has to say.
    fn decided(&mut self, sequence: u64) {
        if let Some(entry) = self.entries.get_mut(&sequence) {
            entry.is_doubtful = false;
        }
    }

    async fn on_tick(&mut self) {
        let now = Instant::now();
        let late = self
            .entries
            .iter()
            .filter(|(_, entry)| match entry.disputed {
                Some(_) => now.duration_since(entry.since) > EVIDENCE_MAX,
                None => now.duration_since(entry.since) > TEXT_MAX,
            });
        let late: Vec<u64> = late.map(|(sequence, _)| *sequence).collect();
        for sequence in late {
            self.on_evidence(sequence, None).await;
            self.texts.entry(sequence).or_insert((None, now));
            self.settle(sequence).await;
        }
        let is_fresh = |since: Instant| now.duration_since(since) < 15 * TEXT_MAX;
        self.texts.retain(|_, (_, since)| is_fresh(*since));
    }

    async fn sign_all(&mut self) {
        for sequence in self.entries.keys().copied().collect::<Vec<_>>() {
            self.texts.entry(sequence).or_insert((None, Instant::now()));
            if let Some(entry) = self.entries.get_mut(&sequence) {
                entry.disputed = None;
            }
            self.settle(sequence).await;
        }
    }

    /// Signs the receipt of an answer, where nothing is waited for any more.
    async fn settle(&mut self, sequence: u64) {
        let waits = |entry: &Entry| entry.disputed.is_some();
        if self.entries.get(&sequence).is_none_or(waits) {
            return;
        }
        let Some((text, _)) = self.texts.remove(&sequence) else {
            return;
        };
        let Some(entry) = self.entries.remove(&sequence) else {
            return;
        };
        let Answered {
            generation,
            answer,
            finish,
            usage,
            claims,
            ..
        } = *entry.answered;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let claims: Vec<Signed> = claims.into_iter().flatten().collect();
        let receipt = Receipt {
            id: generation.id,
            deployment: self.deployment.clone(),
            model: generation.model,
            spec: generation.spec,
            answer,
            finish,
            usage,
            body: generation.body,
            text: text.unwrap_or_default(),
            claims,
            issued: since.map_or(0, |since| since.as_secs()),
        };
        let signers = receipt.claims.iter().map(|claim| claim.signer).collect();
        let signed = Signed::new(&self.key, &receipt);
        let is_drawn = entry.is_doubtful || self.draws(&signed);
        let filed = Filed {
            name: receipt.id,
            receipt: signed,
            audit: is_drawn.then_some(signers),
        };
        let filed = archive::Input::File(Box::new(filed));
        if self.archive.try_send(filed).is_err() {
            tracing::error!("the disk does not follow: a receipt is lost");
            if let Some(hub) = self.hub.upgrade() {
                hub.receipts_lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether an answer is audited: nobody can foresee it, and with the nonce anybody can tell.
    fn draws(&self, receipt: &Signed) -> bool {
        let digest = Digest::of(Domain::Claim, &receipt.body);
        let [a, b, c, d, ..] = seed(&self.nonce, &[digest]).0;
        u64::from(u32::from_le_bytes([a, b, c, d])) < self.audit_rate
    }
}
