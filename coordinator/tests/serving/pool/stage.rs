//! What a make-believe stage computes, keeps and claims.

use std::collections::BTreeMap;

use concord_proto::serving::{
    ClaimOrder, ClaimedDraws, DeploymentId, PAGE_TOKENS, Pass, PassHeader, SequenceRun,
    StageAssignment, StageClaim, TokenLogprob, tokens_digest,
};
use concord_proto::{ARITHMETIC_VERSION, Digest, Domain, Keypair, Origin, Signed, merkle};

use super::VOCAB;

/// The token after `tokens`.
pub fn draw(tokens: &[u32], seed: u64) -> u32 {
    let digest = Digest::of_value(Domain::Draw, &(tokens, seed));
    let [a, b, c, d, ..] = digest.0;
    u32::from_le_bytes([a, b, c, d]) % VOCAB
}

/// A token with made-up logprobs, as many as are asked for.
pub fn scored(token: u32, asked: Option<u8>) -> TokenLogprob {
    let Some(asked) = asked else {
        return TokenLogprob::unasked(token);
    };
    let logprob = |token: u32| (-0.125 * (1 + token % 40) as f32).into();
    TokenLogprob {
        token,
        logprob: logprob(token),
        top: (0..u32::from(asked)).map(|id| (id, logprob(id))).collect(),
    }
}

/// The Merkle root that a last stage claims.
pub fn claimed(tokens: &[TokenLogprob]) -> Digest {
    let digests: Vec<Digest> = tokens.iter().map(TokenLogprob::digest).collect();
    merkle::root(&digests)
}

/// How a worker lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    #[default]
    None,
    /// It claims to have given out other rows than it signed.
    ClaimsOther,
    /// It claims to have received other rows than were signed for it.
    ReceivedOther,
    /// It reports a token that the model does not have.
    NoToken,
    /// It draws another token than the rows give; once in so many.
    OtherToken,
    /// It claims another logprob than it has given.
    OtherLogprob,
    /// It says what cannot be read.
    Garbage,
    /// It does not answer passes.
    Silent,
    /// It computes other runs than the scheduler ordered.
    OtherRuns,
    /// It opens its stream with a ticket of its own.
    OtherTicket,
}

/// Rows on their way to the next stage.
pub struct Frame {
    pub header: PassHeader,
    pub pass: Pass,
}

/// The pages of a stage: the tokens that stand for rows.
pub struct Stage {
    pub key: Keypair,
    pub deployment: DeploymentId,
    pub assignment: StageAssignment,
    pub lie: Lie,
    pages: BTreeMap<u32, Vec<u32>>,
    received: Vec<PassHeader>,
    drawn: BTreeMap<u64, BTreeMap<u32, TokenLogprob>>,
    scored: BTreeMap<u64, BTreeMap<u32, TokenLogprob>>,
}

impl Stage {
    pub fn new(key: Keypair, assignment: StageAssignment, lie: Lie) -> Self {
        Self {
            key,
            deployment: assignment.deployment.id(),
            assignment,
            lie,
            pages: BTreeMap::new(),
            received: Vec::new(),
            drawn: BTreeMap::new(),
            scored: BTreeMap::new(),
        }
    }

    pub fn index(&self) -> usize {
        self.assignment.stage.unwrap() as usize
    }

    pub fn is_last(&self) -> bool {
        self.index() + 1 == self.assignment.stages.len()
    }

    /// Writes a pass into the pages.
    pub fn write(&mut self, pass: &Pass) {
        let mut tokens = pass.tokens.iter();
        for run in &pass.runs {
            for position in run.first..run.first + run.count {
                let page = run.pages[(position / PAGE_TOKENS) as usize];
                assert!(
                    page < self.assignment.pages,
                    "a page that the stage has not"
                );
                let page = self.pages.entry(page).or_default();
                page.resize(PAGE_TOKENS as usize, u32::MAX);
                page[(position % PAGE_TOKENS) as usize] = *tokens.next().unwrap();
            }
        }
    }

    /// The tokens of a sequence up to `end`.
    pub fn tokens(&self, pages: &[u32], end: u32) -> Vec<u32> {
        let token = |at: u32| {
            let page = self.pages.get(&pages[(at / PAGE_TOKENS) as usize]);
            page.map_or(u32::MAX, |page| page[(at % PAGE_TOKENS) as usize])
        };
        (0..end).map(token).collect()
    }

    pub fn note_drawn(&mut self, run: &SequenceRun, token: &TokenLogprob) {
        let drawn = self.drawn.entry(run.sequence).or_default();
        drawn.insert(run.first + run.count, token.clone());
    }

    pub fn note_scored(&mut self, run: &SequenceRun, tokens: &[TokenLogprob]) {
        let scored = self.scored.entry(run.sequence).or_default();
        scored.extend((run.first + 1..).zip(tokens.iter().cloned()));
    }

    /// The digests of the rows between stage `edge` and the next one.
    fn rows(edge: usize, tokens: &[u32]) -> Vec<Digest> {
        let mut before = Digest([edge as u8; 32]);
        let mut rows = Vec::new();
        for token in tokens {
            before = Digest::of_value(Domain::Row, &(before, *token));
            rows.push(before);
        }
        rows
    }

    /// The frame for the next stage.
    pub fn frame(&self, pass: Pass) -> Frame {
        let mut rows = Vec::new();
        for run in &pass.runs {
            let tokens = self.tokens(&run.pages, run.first + run.count);
            rows.extend(Self::rows(self.index(), &tokens).split_off(run.first as usize));
        }
        let epoch = self.assignment.epoch;
        let message = PassHeader::message(&self.deployment, epoch, pass.number, &pass.runs, &rows);
        let origin = Origin {
            worker: self.key.public(),
            signature: self.key.sign(&message),
        };
        let header = PassHeader {
            deployment: self.deployment,
            epoch,
            pass: pass.number,
            runs: pass.runs.clone(),
            rows,
            origin,
        };
        Frame { header, pass }
    }

    pub fn receive(&mut self, header: PassHeader) {
        assert!(header.is_signed());
        self.received.push(header);
    }

    pub fn evidence(&self) -> Vec<PassHeader> {
        self.received.clone()
    }

    pub fn claim(&self, order: &ClaimOrder) -> Signed {
        let stage = self.index();
        let tokens = self.tokens(&order.pages, order.positions);
        let mut input = match stage {
            0 => tokens_digest(&tokens),
            _ => merkle::root(&Self::rows(stage - 1, &tokens)),
        };
        let mut output = merkle::root(&Self::rows(stage, &tokens));
        match self.lie {
            Lie::ClaimsOther => output = Digest([9; 32]),
            Lie::ReceivedOther => input = Digest([9; 32]),
            _ => {}
        }
        let drawn = self.is_last().then(|| self.draws(order));
        let claim = StageClaim {
            deployment: self.deployment,
            spec: order.spec,
            arithmetic: ARITHMETIC_VERSION,
            layers: self.assignment.layers().unwrap(),
            positions: order.positions,
            input,
            output,
            drawn,
            device: "made-up".to_string(),
        };
        Signed::new(&self.key, &claim)
    }

    fn draws(&self, order: &ClaimOrder) -> ClaimedDraws {
        let drawn = self.drawn.get(&order.sequence).cloned().unwrap_or_default();
        let first = drawn.keys().next().copied().unwrap_or(order.prompt);
        let mut own: Vec<TokenLogprob> = drawn.into_values().collect();
        if self.lie == Lie::OtherLogprob {
            own[0].logprob.0 ^= 1;
        }
        let scored = self.scored.get(&order.sequence);
        let scored = scored.map(|all| all.values().cloned().collect::<Vec<_>>());
        let scored = scored.filter(|all| all.len() + 1 == order.prompt as usize);
        ClaimedDraws {
            earlier: first - order.prompt,
            tokens: claimed(&own),
            scored: scored.as_deref().map(claimed),
        }
    }
}
