//! When answers are guaranteed: pure functions of a model, of codes and of noise.
//!
//! A [`ModelProfile`] holds what the theorems need to know of the dictionaries, [`Levels`] what they need to know of a signal's
//! representations, [`Noise`] what is known of the noise. A [`Theorem`] turns the three into a bound for every layer, or
//! says which condition failed and by how much. [`certificate`] puts them together for codes that a pursuit has found.
//!
//! What is said is about the model whose filters are these `f32` values exactly, and about the codes as they are. Every number that
//! feeds a condition or a bound is computed in `f64` and rounded outwards by a bound of its error, so that a statement is true in
//! exact arithmetic or is not made.

pub mod bounds;
mod cascade;
pub mod certificate;
pub mod coherence;
mod columns;
pub(crate) mod levels;
pub(crate) mod profile;
mod rounding;

pub use bounds::{Bound, Noise, Penalty, Promise, Support, Theorem, Unmet};
pub use certificate::Certificate;
pub use coherence::{Coherence, mutual_coherence, welch_bound};
pub use columns::ColumnPair;
pub use levels::{Errors, LayerLevels, Levels};
pub use profile::{DictionaryProfile, ModelProfile};
