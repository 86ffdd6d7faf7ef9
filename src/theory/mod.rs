//! When answers are guaranteed: pure functions of a model, of codes and of noise.
//!
//! A [`ModelProfile`] holds what the theorems need to know of the dictionaries, [`Levels`] what they need to know of a signal's
//! representations, [`Noise`] what is known of the noise. A [`Theorem`] turns the three into a bound for every layer, or
//! says which condition failed and by how much. [`certificate`] puts them together for codes that a pursuit has found.

pub mod bounds;
pub mod certificate;
pub mod coherence;
pub mod levels;
pub mod profile;

pub use bounds::{Bound, Noise, Penalty, Promise, Support, Theorem, Unmet};
pub use certificate::Certificate;
pub use coherence::{Coherence, mutual_coherence, welch_bound};
pub use levels::{Errors, LayerLevels, Levels};
pub use profile::{DictionaryProfile, ModelProfile};
