//! Coherences, theorems, certificates and samples.

mod coherence;
mod definitions;
mod exact;
