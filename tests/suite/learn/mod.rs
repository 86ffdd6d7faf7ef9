//! Dictionaries and rivals that learn.

#[cfg(feature = "train")]
mod end_to_end;
mod gradient;
#[cfg(feature = "train")]
mod losses;
mod normalization;
#[cfg(feature = "train")]
mod reseeding;
mod runs;
