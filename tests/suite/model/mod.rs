//! The model, its operator and its files.

mod file;
mod operator;
mod reference;
