//! Auto-encoders of others, as their own software saves them and computes with them.

mod references;
mod refusals;
