//! Reports another token than it drew, once.

use concord_proto::serving::Drawn;

use super::FaultHooks;

#[derive(Debug)]
pub(super) struct WrongToken {
    pub(super) pass: u64,
}

impl FaultHooks for WrongToken {
    fn after_drawing(&self, pass: u64, vocab: u32, drawn: &mut [Drawn]) {
        let first = drawn.iter_mut().find_map(|drawn| drawn.token.as_mut());
        if let Some(token) = first.filter(|_| pass == self.pass) {
            token.token = (token.token + 1) % vocab;
        }
    }
}
