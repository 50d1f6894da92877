//! Signed messages in the envelopes that gRPC carries.
#![cfg(feature = "grpc")]

mod messages;

use concord_proto::Signed;
use concord_proto::wire::Envelope;
use messages::Source;
use proptest::prelude::*;

proptest! {
    #[test]
    fn envelopes_carry_signed_messages(
        seed in any::<u64>(), lengths in (0..70_usize, 0..70_usize),
    ) {
        let signed = Source::new(seed).signed();
        let envelope = Envelope::from(signed.clone());
        prop_assert_eq!(Signed::try_from(envelope.clone()), Ok(signed));
        let odd = Envelope {
            signer: vec![0; lengths.0],
            signature: vec![0; lengths.1],
            ..envelope
        };
        prop_assert_eq!(Signed::try_from(odd).is_ok(), lengths == (32, 64));
    }
}
