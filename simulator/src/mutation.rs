//! Liars that nobody has thought of: what a process says is altered in any field of any message, by
//! dice. What it signs, it signs with its own key, so that every alteration is one that a real liar
//! could send.

use borsh::{BorshDeserialize, BorshSerialize};
use concord_proto::ledger::Verdict;
use concord_proto::session::ToCoordinator;
use concord_proto::{
    Claim, Digest, Domain, F32Bits, FirstHalf, Keypair, Leaf, LeafPhase, Origin, PortKind, Signed,
    canonical, first_half_digest, leaf_root,
};
use concord_verify::training::norms_digest;

use super::rng::Rng;
use super::worker::Frame;
use super::world::SECOND;

/// A process that alters some of what it says.
pub struct Mutant {
    key: Keypair,
    rng: Rng,
    /// Which of its messages of that kind are altered.
    from: u64,
    until: u64,
    target: Target,
    seen: u64,
    /// What it said before, to be said again.
    said: Vec<ToCoordinator>,
    /// What it did, for people.
    pub deeds: Vec<String>,
}

/// What dice choose from: the first halves of claims twice as often as the rest.
pub const TARGETS: [Target; 6] = [
    Target::Computed,
    Target::Computed,
    Target::Updated,
    Target::Verdict,
    Target::Frame,
    Target::Rest,
];

/// What is altered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Computed,
    Updated,
    Verdict,
    /// What goes to other workers.
    Frame,
    /// All other messages but heartbeats.
    Rest,
}

/// What reaches the coordinator in place of a message, and how much later.
pub enum Sent {
    Message(Box<ToCoordinator>),
    /// Bytes that are no message.
    Garbage,
}

impl Mutant {
    pub fn new(key: Keypair, seed: u64, target: Target) -> Self {
        let mut rng = Rng::new(seed);
        let from = rng.below(6);
        let until = match rng.chance(3) {
            true => u64::MAX,
            false => from + 1 + rng.below(3),
        };
        Self {
            key,
            rng,
            from,
            until,
            target,
            seen: 0,
            said: Vec::new(),
            deeds: Vec::new(),
        }
    }

    /// Whether this one is altered.
    fn strikes(&mut self, target: Target) -> bool {
        if target != self.target {
            return false;
        }
        self.seen += 1;
        (self.from..self.until).contains(&(self.seen - 1))
    }

    fn note(&mut self, deed: &str) {
        self.deeds.push(format!("{:?}: {deed}", self.target));
    }

    /// What is sent in place of `message`, each so many microseconds later.
    pub fn send(&mut self, message: ToCoordinator) -> Vec<(u64, Sent)> {
        let target = match &message {
            ToCoordinator::Heartbeat => return vec![(0, Sent::Message(Box::new(message)))],
            ToCoordinator::Computed { .. } => Target::Computed,
            ToCoordinator::Updated { .. } => Target::Updated,
            ToCoordinator::Verdict { .. } => Target::Verdict,
            _ => Target::Rest,
        };
        if !self.strikes(target) {
            self.said.push(message.clone());
            return vec![(0, Sent::Message(Box::new(message)))];
        }
        match self.rng.below(8) {
            0 => {
                self.note("withheld");
                Vec::new()
            }
            1 => {
                self.note("twice");
                let again = Sent::Message(Box::new(message.clone()));
                vec![
                    (0, Sent::Message(Box::new(message))),
                    (self.rng.below(SECOND), again),
                ]
            }
            2 => {
                self.note("late");
                vec![(
                    self.rng.below(60 * SECOND),
                    Sent::Message(Box::new(message)),
                )]
            }
            3 => {
                let same = |said: &&ToCoordinator| {
                    std::mem::discriminant(*said) == std::mem::discriminant(&message)
                };
                let old = self.said.iter().rev().find(same).cloned();
                self.note("an earlier one again");
                vec![(0, Sent::Message(Box::new(old.unwrap_or(message))))]
            }
            4 => {
                self.note("a byte of the message");
                vec![(0, self.altered(&message))]
            }
            _ => vec![(0, self.signed_anew(message))],
        }
    }

    /// What is sent in place of `frame`. Where its signature does not hold, an honest worker drops
    /// it.
    pub fn push(&mut self, mut frame: Frame) -> Vec<(u64, Frame)> {
        if !self.strikes(Target::Frame) {
            return vec![(0, frame)];
        }
        match self.rng.below(4) {
            0 => {
                self.note("withheld");
                Vec::new()
            }
            1 => {
                self.note("twice");
                vec![(0, frame.clone()), (self.rng.below(SECOND), frame)]
            }
            2 => {
                self.note("late");
                vec![(self.rng.below(60 * SECOND), frame)]
            }
            _ => {
                self.note("another tensor");
                frame.port.digest = Digest::of(Domain::Blob, &self.rng.number().to_le_bytes());
                let Frame {
                    job,
                    attempt,
                    microbatch,
                    port,
                    ..
                } = frame;
                let message = Origin::message(&job, &attempt, microbatch, &port);
                frame.origin = Origin::sign(&self.key, &message);
                vec![(0, frame)]
            }
        }
    }

    /// The message with some of its bytes altered, whatever they are of.
    fn altered(&mut self, message: &ToCoordinator) -> Sent {
        match self.mutated(message) {
            Some(message) => Sent::Message(Box::new(message)),
            None => Sent::Garbage,
        }
    }

    /// A value with some bytes of its encoding altered; none where they are no such value any more.
    fn mutated<T: BorshSerialize + BorshDeserialize>(&mut self, value: &T) -> Option<T> {
        let mut bytes = canonical::encode(value);
        self.mutate(&mut bytes);
        canonical::decode(&bytes).ok()
    }

    fn mutate(&mut self, bytes: &mut [u8]) {
        let len = bytes.len();
        if len == 0 {
            return;
        }
        let at = self.rng.below(len as u64) as usize;
        let run = |count: usize| at..(at + count).min(len);
        match self.rng.below(6) {
            0 => bytes[at] ^= 1 << self.rng.below(8),
            1 => bytes[run(4)].fill(0),
            2 => bytes[run(8)].fill(0xff),
            3 => bytes[run(32)].fill(0),
            4 => {
                let from = self.rng.below(len as u64) as usize;
                let count = 32.min(len - at).min(len - from);
                bytes.copy_within(from..from + count, at);
            }
            _ => bytes[at] = bytes[at].wrapping_add(1),
        }
    }

    /// A part of the message that is signed by itself is altered and signed again, and what rests
    /// on it follows: as one who wants to be believed would do it.
    fn signed_anew(&mut self, message: ToCoordinator) -> Sent {
        let altered = match message.clone() {
            ToCoordinator::Computed { .. } => self.first_half_anew(message),
            ToCoordinator::Updated { claim, leaves } => self.claim_anew(&claim, leaves),
            ToCoordinator::Verdict { order, verdict } => self.verdict_anew(order, &verdict),
            other => {
                self.note("a byte of the message");
                return self.altered(&other);
            }
        };
        altered.map_or(Sent::Garbage, |message| Sent::Message(Box::new(message)))
    }

    fn first_half_anew(&mut self, mut message: ToCoordinator) -> Option<ToCoordinator> {
        let ToCoordinator::Computed {
            first_half,
            leaves,
            losses,
            norms,
            ..
        } = &mut message
        else {
            return None;
        };
        let mut half = first_half.open::<FirstHalf>().ok()?;
        match self.rng.below(4) {
            0 => half = self.mutated(&half)?,
            1 => {
                self.mutate_leaf(leaves);
                half.leaf_root = leaf_root(leaves);
            }
            2 => {
                let value = self.value();
                if let Some(loss) = self.pick(losses) {
                    loss.sum = value;
                }
            }
            _ => {
                let value = self.value();
                if let Some(norm) = self.pick(norms) {
                    norm.squared = value;
                }
                let digest = norms_digest(norms);
                for leaf in leaves.iter_mut().filter(|l| l.phase == LeafPhase::Norm) {
                    let outputs = leaf.outputs.iter_mut();
                    let norms = outputs.filter(|port| port.kind == PortKind::Norms);
                    norms.for_each(|port| port.digest = digest);
                }
                half.leaf_root = leaf_root(leaves);
            }
        }
        self.note("the first half, signed anew");
        *first_half = Signed::new(&self.key, &half);
        Some(message)
    }

    fn claim_anew(&mut self, claim: &Signed, mut leaves: Vec<Leaf>) -> Option<ToCoordinator> {
        let mut opened = claim.open::<Claim>().ok()?;
        match self.rng.below(3) {
            0 => opened = self.mutated(&opened)?,
            1 => {
                self.mutate_leaf(&mut leaves);
                opened.leaf_root = leaf_root(&leaves);
            }
            _ => opened.first_half = first_half_digest(claim),
        }
        self.note("the claim, signed anew");
        let claim = Signed::new(&self.key, &opened);
        Some(ToCoordinator::Updated { claim, leaves })
    }

    fn verdict_anew(&mut self, order: u64, verdict: &Signed) -> Option<ToCoordinator> {
        let opened = verdict.open::<Verdict>().ok()?;
        let altered = self.mutated(&opened)?;
        self.note("the verdict, signed anew");
        let verdict = Signed::new(&self.key, &altered);
        Some(ToCoordinator::Verdict { order, verdict })
    }

    /// Alters one leaf, so that it stays a leaf.
    fn mutate_leaf(&mut self, leaves: &mut [Leaf]) {
        if leaves.is_empty() {
            return;
        }
        let at = self.rng.below(leaves.len() as u64) as usize;
        let leaf = leaves[at].clone();
        let altered = (0..20).find_map(|_| self.mutated(&leaf));
        leaves[at] = altered.unwrap_or(leaf);
    }

    fn pick<'a, T>(&mut self, all: &'a mut [T]) -> Option<&'a mut T> {
        match all.len() {
            0 => None,
            count => all.get_mut(self.rng.below(count as u64) as usize),
        }
    }

    /// A number that arithmetic stumbles over, or any.
    fn value(&mut self) -> F32Bits {
        match self.rng.below(7) {
            0 => F32Bits::from(f32::NAN),
            1 => F32Bits::from(f32::INFINITY),
            2 => F32Bits::from(1e30),
            3 => F32Bits::from(0.0),
            4 => F32Bits::from(-1.0),
            5 => F32Bits(0x8000_0000),
            _ => F32Bits(self.rng.number() as u32),
        }
    }
}
