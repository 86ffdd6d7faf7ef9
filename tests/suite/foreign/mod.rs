//! Auto-encoders of others, as their own software saves them and computes with them.

mod doctor;
mod program;
mod references;
mod refusals;
