//! What a worker may do that is not honest.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The forward pass gives something else: a smaller model, lower precision.
    WrongForward,
    /// So does the backward pass.
    WrongBackward,
    /// The update is left out and the old state is claimed.
    SkipUpdate,
    /// The tokens of another microbatch.
    WrongTokens,
    /// The state of another step.
    StaleState,
    /// The claim of the step before.
    Replay,
    /// A signature that fits nothing.
    ForgedClaim,
    /// A tensor sent and another claimed.
    OtherActivation,
    /// A sum sent and another claimed.
    OtherSum,
    /// A claim to have received what nobody sent.
    OtherInput,
    /// A claim that names a history that nobody else was shown.
    OtherHistory,
    /// A leaf is missing.
    MissingLeaf,
    /// A norm that is not that of the gradient.
    WrongNorm,
    /// A norm that is no number, infinite, or below 0.
    NanNorm,
    InfiniteNorm,
    NegativeNorm,
    /// Silence, but for the heartbeats, before the gradients are sent.
    SilentForward,
    /// Silence once the scalars are there.
    SilentUpdate,
    /// Silence where the state is to be stored.
    SilentFlush,
    /// Another state goes into the store than was committed.
    OtherFlush,
}

#[derive(Clone, Copy, Debug)]
pub struct Lie {
    pub kind: Kind,
    pub from_step: u32,
}

impl Lie {
    pub fn wrong_forward(self) -> bool {
        self.kind == Kind::WrongForward
    }

    pub fn wrong_backward(self) -> bool {
        self.kind == Kind::WrongBackward
    }

    pub fn skips_update(self) -> bool {
        self.kind == Kind::SkipUpdate
    }

    pub fn replays(self) -> bool {
        self.kind == Kind::Replay
    }

    pub fn claims_other_sum(self) -> bool {
        self.kind == Kind::OtherSum
    }

    /// The squared norm that is reported in place of the right one, if any.
    pub fn norm(self) -> Option<f32> {
        match self.kind {
            Kind::WrongNorm => Some(1e20),
            Kind::NanNorm => Some(f32::NAN),
            Kind::InfiniteNorm => Some(f32::INFINITY),
            Kind::NegativeNorm => Some(-1.0),
            _ => None,
        }
    }

    pub fn flushes_other(self) -> bool {
        self.kind == Kind::OtherFlush
    }
}
