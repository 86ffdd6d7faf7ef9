//! Multi-Layer Convolutional Sparse Coding on [burn](https://burn.dev).

pub mod cli;
pub mod data;
pub mod device;
pub mod error;
pub mod export;
pub mod files;
pub mod learn;
pub mod model;
pub mod pursuit;
pub mod theory;

pub use error::{Error, Result};
