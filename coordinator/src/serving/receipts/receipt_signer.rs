//! Claims are checked as they come, and what the answers were is signed: all that are ready while
//! the disk is busy, at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use concord_proto::ledger::Offence;
use concord_proto::limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX};
use concord_proto::serving::{
    BatchedReceipt, Deployment, DeploymentId, Finish, Generation, GenerationSpec, GivenLogprobs,
    PassHeader, Receipt, ServedModel, StageClaim, Usage, draw_seed, nonce_commitment,
};
use concord_proto::{Digest, Domain, Layers, Signed, WorkerId, canonical};
use concord_verify::serving::{AnswerRules, EarlierHolder, EdgeDispute, EdgeFault, first_gap};
use tokio::sync::{mpsc, oneshot};

use super::archive::{ArchiveRequest, FiledReceipt};
use super::{LostReceipts, ReceiptSecrets};
use crate::core::ServingEvent;
use crate::serving::router::{PipelineInput, Router};

/// How long the digest of the text that was sent is waited for.
const TEXT_MAX: Duration = Duration::from_secs(2);

/// How long a stage may take to send the headers that it received.
const EVIDENCE_MAX: Duration = Duration::from_secs(5);

/// Receipts that may wait to be signed, where the disk does not follow.
const READY_MAX: usize = 8_192;

/// Receipts that are signed at once.
const BATCH_MAX: usize = 256;

/// The longest receipt: with its path and signature it is a message.
const RECEIPT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - CHUNK_BYTES;

/// Texts of answers whose claims are not there yet.
const TEXTS_MAX: usize = 8_192;

/// What the receipt signer is told.
pub(in crate::serving) enum SignerRequest {
    /// An answer is done, and its stages have claimed what they will claim.
    Answered(Box<ClaimedAnswer>),
    /// The client says what was sent, or is gone.
    Closed {
        sequence: u64,
        sent: Option<SentText>,
    },
    /// The headers that a stage received, or nothing where the stage is gone.
    Evidence {
        sequence: u64,
        headers: Option<Vec<PassHeader>>,
    },
    /// The end, once everything is written.
    Stop(oneshot::Sender<()>),
}

/// What a client was sent, in its own words.
#[derive(Clone, Copy)]
pub(in crate::serving) struct SentText {
    /// Under [`Domain::Text`].
    pub(in crate::serving) text: Digest,
    /// Why the answer ended.
    pub(in crate::serving) finish: Finish,
}

/// An answer with the claims of its stages.
pub(in crate::serving) struct ClaimedAnswer {
    pub(in crate::serving) sequence: u64,
    pub(in crate::serving) pipeline: u32,
    pub(in crate::serving) epoch: u32,
    pub(in crate::serving) generation: Generation,
    pub(in crate::serving) answer: Vec<u32>,
    pub(in crate::serving) logprobs: GivenLogprobs,
    pub(in crate::serving) finish: Finish,
    pub(in crate::serving) usage: Usage,
    /// What earlier holders of the last stage drew and scored.
    pub(in crate::serving) before: EarlierHolder,
    /// The stages of the plan, in order.
    pub(in crate::serving) stages: Vec<HeldStage>,
    /// By stage.
    pub(in crate::serving) claims: Vec<Option<Signed>>,
    pub(in crate::serving) pages: Vec<u32>,
    /// Whether the pipeline holds the pages until it hears that the claims are checked.
    pub(in crate::serving) is_held: bool,
}

/// A stage and the worker that holds it.
pub(in crate::serving) struct HeldStage {
    pub(in crate::serving) worker: WorkerId,
    pub(in crate::serving) layers: Layers,
}

/// An answer on its way to its receipt.
struct Entry {
    answered: Box<ClaimedAnswer>,
    claims: Vec<Option<StageClaim>>,
    since: Instant,
    /// The stage that claims another input than the stage before claims to have sent, while its
    /// evidence is waited for.
    disputed: Option<usize>,
    /// Whether the answer is audited in any case.
    is_doubtful: bool,
}

/// A receipt that is to be signed.
struct ReadyReceipt {
    name: String,
    /// The canonical encoding of the [`Receipt`].
    bytes: Vec<u8>,
    /// Who signed its claims, where it is to be audited.
    audit: Option<Vec<WorkerId>>,
}

/// The task that signs receipts.
pub(super) struct ReceiptSigner {
    deployment: Deployment,
    id: DeploymentId,
    secrets: ReceiptSecrets,
    audit_rate: u64,
    router: Arc<Router>,
    events: mpsc::Sender<ServingEvent>,
    archive: mpsc::Sender<ArchiveRequest>,
    lost: LostReceipts,
    entries: BTreeMap<u64, Entry>,
    sent: BTreeMap<u64, (Option<SentText>, Instant)>,
    ready: Vec<ReadyReceipt>,
}

impl ReceiptSigner {
    pub(super) fn new(
        served: &ServedModel,
        secrets: ReceiptSecrets,
        router: Arc<Router>,
        events: mpsc::Sender<ServingEvent>,
        archive: mpsc::Sender<ArchiveRequest>,
        lost: LostReceipts,
    ) -> Self {
        let commitment = nonce_commitment(&secrets.nonce);
        tracing::info!(%commitment, "audits of answers are drawn with this nonce");
        Self {
            deployment: served.deployment.clone(),
            id: served.deployment.id(),
            secrets,
            audit_rate: served.audit_rate,
            router,
            events,
            archive,
            lost,
            entries: BTreeMap::new(),
            sent: BTreeMap::new(),
            ready: Vec::new(),
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<SignerRequest>) {
        let mut ticks = tokio::time::interval(TEXT_MAX / 8);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let archive = self.archive.clone();
        loop {
            tokio::select! {
                // An idle disk takes one at once; a busy one as many as came meanwhile.
                Ok(place) = archive.reserve(), if !self.ready.is_empty() => {
                    place.send(ArchiveRequest::File(self.sign_batch()));
                }
                request = requests.recv() => match request {
                    Some(SignerRequest::Answered(answered)) => self.on_answered(answered).await,
                    Some(SignerRequest::Closed { sequence, sent }) => {
                        self.note_sent(sequence, sent);
                        self.settle(sequence).await;
                    }
                    Some(SignerRequest::Evidence { sequence, headers }) => {
                        self.on_evidence(sequence, headers).await;
                    }
                    Some(SignerRequest::Stop(done)) => {
                        self.settle_all().await;
                        while !self.ready.is_empty() {
                            let batch = ArchiveRequest::File(self.sign_batch());
                            let _ = self.archive.send(batch).await;
                        }
                        let _ = self.archive.send(ArchiveRequest::Stop(done)).await;
                        return;
                    }
                    None => return,
                },
                _ = ticks.tick() => self.on_tick().await,
            }
        }
    }

    /// Holds the digest of a text until the claims are there. Nothing is held of a client that is
    /// gone before that. Where there are too many, the oldest goes, so that no client can keep out
    /// the texts of others.
    fn note_sent(&mut self, sequence: u64, sent: Option<SentText>) {
        if sent.is_none() && !self.entries.contains_key(&sequence) {
            return;
        }
        if self.sent.len() >= TEXTS_MAX {
            let oldest = self.sent.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(oldest) = oldest.map(|(sequence, _)| *sequence) {
                self.sent.remove(&oldest);
            }
        }
        self.sent.insert(sequence, (sent, Instant::now()));
    }

    async fn on_answered(&mut self, mut answered: Box<ClaimedAnswer>) {
        let claims = self.check_claims(&mut answered).await;
        let opened = claims.iter().enumerate();
        let opened = opened.filter_map(|(stage, claim)| Some((stage, claim.as_ref()?)));
        let disputed = first_gap(opened).map(|(_, receiver)| receiver);
        let sequence = answered.sequence;
        if let Some(stage) = disputed {
            let name = &answered.generation.id;
            tracing::warn!(answer = name, stage, "two stages claim different things");
            let evidence = PipelineInput::Evidence { sequence, stage };
            let asks = answered.is_held && self.tell(answered.pipeline, evidence);
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

    /// The claims that fit the answer, by stage. The others are removed from it, and the workers
    /// that signed them are distrusted.
    async fn check_claims(&self, answered: &mut ClaimedAnswer) -> Vec<Option<StageClaim>> {
        let spec = &answered.generation.spec;
        let (answer, logprobs) = (&answered.answer, &answered.logprobs);
        let rules = AnswerRules::new(&self.deployment, spec, answer, logprobs);
        let (mut claims, mut faults) = (Vec::new(), Vec::new());
        for (stage, signed) in answered.claims.iter().enumerate() {
            let HeldStage { worker, layers } = answered.stages[stage];
            let check = |signed| rules.check_holder(worker, layers, answered.before, signed);
            claims.push(match signed.as_ref().map(check) {
                Some(Ok(claim)) => Some(claim),
                Some(Err(why)) => {
                    faults.push((stage, why));
                    None
                }
                None => None,
            });
        }
        for (stage, why) in faults {
            answered.claims[stage] = None;
            let name = &answered.generation.id;
            let reason = format!("answer {name}: {why}");
            self.distrust(answered.stages[stage].worker, reason).await;
        }
        claims
    }

    /// The pages of the sequence may go.
    fn release(&self, entry: &Entry) {
        let sequence = entry.answered.sequence;
        if entry.answered.is_held {
            self.tell(entry.answered.pipeline, PipelineInput::Checked { sequence });
        }
    }

    /// Tells a pipeline without waiting; says whether that was possible.
    fn tell(&self, index: u32, input: PipelineInput) -> bool {
        self.router.try_send(index, input).is_ok()
    }

    async fn distrust(&self, worker: WorkerId, reason: String) {
        let event = ServingEvent::Distrusted { worker, reason };
        // A core that has ended plans nothing.
        let _ = self.events.send(event).await;
    }

    async fn on_evidence(&mut self, sequence: u64, headers: Option<Vec<PassHeader>>) {
        let Some(entry) = self.entries.get_mut(&sequence) else {
            return;
        };
        let Some(stage) = entry.disputed.take() else {
            return;
        };
        let answered = &entry.answered;
        let [sender, receiver] = [stage - 1, stage].map(|at| answered.stages[at].worker);
        let claim = entry.claims[stage].as_ref();
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
                // A receiver that is present must have what it claims to have received.
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

    /// It is known who was wrong: no audit has to find out.
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
            self.sent.entry(sequence).or_insert((None, now));
            self.settle(sequence).await;
        }
        let is_fresh = |since: Instant| now.duration_since(since) < 15 * TEXT_MAX;
        self.sent.retain(|_, (_, since)| is_fresh(*since));
    }

    async fn settle_all(&mut self) {
        for sequence in self.entries.keys().copied().collect::<Vec<_>>() {
            self.sent.entry(sequence).or_insert((None, Instant::now()));
            if let Some(entry) = self.entries.get_mut(&sequence) {
                entry.disputed = None;
            }
            self.settle(sequence).await;
        }
    }

    /// Writes the receipt of an answer, unless something is still waited for.
    async fn settle(&mut self, sequence: u64) {
        let waits = |entry: &Entry| entry.disputed.is_some();
        if self.entries.get(&sequence).is_none_or(waits) {
            return;
        }
        let Some((sent, _)) = self.sent.remove(&sequence) else {
            return;
        };
        let Some(entry) = self.entries.remove(&sequence) else {
            return;
        };
        let ClaimedAnswer {
            generation,
            answer,
            logprobs,
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
            finish: finished(&generation.spec, finish, sent),
            spec: generation.spec,
            answer,
            logprobs,
            usage,
            body: generation.body,
            text: sent.map_or_else(Digest::default, |sent| sent.text),
            claims,
            issued: since.map_or(0, |since| since.as_secs()),
        };
        let signers = receipt.claims.iter().map(|claim| claim.signer).collect();
        let encoded = canonical::encode(&receipt);
        if encoded.len() > RECEIPT_BYTES_MAX {
            let (name, bytes) = (receipt.id, encoded.len());
            tracing::error!(
                name,
                bytes,
                "a receipt is too long to be read again: it is lost"
            );
            self.lost.add(1);
            return;
        }
        if self.ready.len() >= READY_MAX {
            tracing::error!("the disk does not follow: a receipt is lost");
            self.lost.add(1);
            return;
        }
        let is_drawn = entry.is_doubtful || self.draws(&encoded);
        self.ready.push(ReadyReceipt {
            name: receipt.id,
            bytes: encoded,
            audit: is_drawn.then_some(signers),
        });
    }

    /// Signs the oldest receipts that are ready, under one signature.
    fn sign_batch(&mut self) -> Vec<FiledReceipt> {
        let count = self.ready.len().min(BATCH_MAX);
        let mut bytes = Vec::with_capacity(count);
        let mut named = Vec::with_capacity(count);
        for ready in self.ready.drain(..count) {
            bytes.push(ready.bytes);
            named.push((ready.name, ready.audit));
        }
        let signed = BatchedReceipt::sign(&self.secrets.key, bytes).into_iter();
        let filed = named.into_iter().zip(signed);
        filed
            .map(|((name, audit), receipt)| FiledReceipt {
                name,
                receipt,
                audit,
            })
            .collect()
    }

    /// Whether an answer is audited. Nobody can foresee it; everybody who has the nonce can check
    /// it.
    fn draws(&self, receipt: &[u8]) -> bool {
        let digest = Digest::of(Domain::Claim, receipt);
        let [a, b, c, d, ..] = draw_seed(&self.secrets.nonce, &[digest]).0;
        u64::from(u32::from_le_bytes([a, b, c, d])) < self.audit_rate
    }
}

/// Why an answer ended, for its receipt. The scheduler knows of no stop text but those that it was
/// told: where the client has not read to the end, one may have come before.
fn finished(spec: &GenerationSpec, scheduled: Finish, sent: Option<SentText>) -> Finish {
    let was_told = matches!(scheduled, Finish::StopText | Finish::Grammar);
    match sent {
        Some(sent) => sent.finish,
        None if was_told || spec.stop_texts.is_empty() => scheduled,
        None => Finish::Cancelled,
    }
}
