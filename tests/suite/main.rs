//! The integration tests, in folders named as the modules of `src/`. They are one program, for every other would compile and link all
//! of burn once more.

mod common;

#[cfg(feature = "autodiff")]
mod autoencoder;
mod cli;
mod foreign;
mod learn;
mod model;
mod pursuit;
mod theory;
