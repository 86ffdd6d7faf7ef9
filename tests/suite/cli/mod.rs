//! The program from outside.

mod certify;
mod classify;
mod commands;
mod compare;
mod data;
mod odd_inputs;
mod output_files;
mod restore;
#[cfg(unix)]
mod runs;
mod shards;
mod signals;
#[cfg(unix)]
mod train;
