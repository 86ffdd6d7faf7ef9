//! What pursuits are worth, measured: side by side on the same signals ([`comparison`]), and beside what the theorems promise
//! ([`trial`]); what a dictionary found of the features that signals were made of ([`recovery`]); how close
//! pictures are to a reference ([`pictures`]); curves ([`plot`]).

pub mod comparison;
pub mod pictures;
#[cfg(feature = "plot")]
pub mod plot;
pub mod recovery;
pub mod trial;
