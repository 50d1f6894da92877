//! What is signed about an answer: the rules that need no arithmetic.
//!
//! The coordinator checks the claims of the stages by [`AnswerRules`] before it signs a receipt,
//! and asks for headers where two claims differ ([`EdgeDispute`]). The judge of a receipt starts
//! with [`CheckedReceipt`], which checks the same claims by the same rules.
//!
//! ```
//! use concord_proto::{Keypair, Signed};
//! use concord_proto::serving::AnswerVerdict;
//! use concord_verify::serving::CheckedReceipt;
//!
//! let nonsense = Signed::new(&Keypair::from_secret([1; 32]), &"no receipt".to_string());
//! let verdict = CheckedReceipt::open(&nonsense, None).expect_err("it is no receipt");
//! assert!(matches!(verdict, AnswerVerdict::Altered { .. }));
//! ```

mod claim;
mod evidence;
mod receipt;

pub use claim::{AnswerRules, first_gap};
pub use evidence::{EdgeDispute, EdgeFault};
pub use receipt::{CheckedReceipt, ReceiptClaim};
