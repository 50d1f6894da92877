//! Sends other rows than it claims, in one pass.

use super::FaultHooks;
use super::altered_activation::alter;

#[derive(Debug)]
pub(super) struct AlteredSent {
    pub(super) pass: u64,
}

impl FaultHooks for AlteredSent {
    fn before_sending_rows(&self, pass: u64, rows: &mut [f32]) -> bool {
        let lies = pass == self.pass;
        if lies {
            alter(rows);
        }
        lies
    }
}
