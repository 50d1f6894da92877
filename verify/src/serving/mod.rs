//! What is signed about an answer: the rules that need no arithmetic.
//!
//! The coordinator checks the claims of the stages by [`AnswerRules`] before it signs a receipt,
//! and asks for headers where two claims differ ([`EdgeDispute`]). The judge of a receipt starts
//! with [`CheckedReceipt`], which checks the same claims by the same rules; why the answer ended is
//! derived by [`EndRules`].
//!
//! ```
//! use concord_proto::Keypair;
//! use concord_proto::serving::BatchedReceipt;
//! use concord_proto::serving::AnswerVerdict;
//! use concord_verify::serving::CheckedReceipt;
//!
//! let key = Keypair::from_secret([1; 32]);
//! let nonsense = &BatchedReceipt::sign(&key, vec![b"no receipt".to_vec()])[0];
//! let verdict = CheckedReceipt::open(nonsense, None).expect_err("it is no receipt");
//! assert!(matches!(verdict, AnswerVerdict::Altered { .. }));
//! ```

mod claim;
mod end;
mod evidence;
mod receipt;

pub use claim::{AnswerRules, EarlierHolder, first_gap};
pub use end::{AnswerEnd, EndRules};
pub use evidence::{EdgeDispute, EdgeFault};
pub use receipt::{CheckedReceipt, ReceiptClaim};
