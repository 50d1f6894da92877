//! Reports another logprob than its logits give, once.

use concord_proto::F32Bits;
use concord_proto::serving::Drawn;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct WrongLogprob {
    pub(super) pass: u64,
}

impl FaultHooks for WrongLogprob {
    fn after_drawing(&self, pass: u64, _vocab: u32, drawn: &mut [Drawn]) {
        if pass != self.pass {
            return;
        }
        let asked = |drawn: &&mut Drawn| {
            let token = drawn.token.as_ref();
            token.is_some_and(|token| token.logprob != F32Bits::from(0.0))
        };
        let first = drawn.iter_mut().find(asked);
        if let Some(token) = first.and_then(|drawn| drawn.token.as_mut()) {
            // The next number: nothing smaller could be told apart.
            token.logprob.0 ^= 1;
        }
    }
}
