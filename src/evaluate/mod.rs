//! What pursuits are worth, measured: side by side on the same signals ([`comparison`]), and beside what the theorems promise
//! ([`trial`]); curves of both ([`plot`]).

pub mod comparison;
#[cfg(feature = "plot")]
pub mod plot;
pub mod trial;
